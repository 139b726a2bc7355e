//! Warnings of keys whose requests would come to the upstream without a credential.
//!
//! A key's own comes first, then its team's, then that of the configuration. Where there is none, only clients
//! that bring their own beside `x-proxy-key` are served; everybody else reads the upstream's 401 alone.

use super::core::Registry;
use crate::access::{Key, SubjectId};

/// Credential that the requests of a key get.
enum Outlook {
    /// One that is there, as far as is known.
    Given,
    /// The one of a variable that is not set.
    Unset(String),
    /// None.
    None,
}

impl Registry {
    /// The warning of a key with this owner and variable.
    pub(super) fn credential_warning(
        &self,
        team: Option<&str>,
        own: Option<&str>,
    ) -> Option<String> {
        let of_team = || {
            let team = self.access.subject(&SubjectId::Team(team?.to_owned()))?;
            team.upstream_key_env
        };
        match self.outlook(own.map(str::to_owned).or_else(of_team)) {
            Outlook::Given => None,
            Outlook::Unset(variable) => Some(format!(
                "{variable}, the credential for the upstream, is not set {here}: requests with this key are refused; \
                 set it in the environment of the proxy and restart it",
                here = self.here()
            )),
            Outlook::None => Some(format!(
                "there is no credential for the upstream {here}: it refuses requests with this key (401), unless \
                 their clients send a credential of their own and the key as x-proxy-key; set UPSTREAM_API_KEYS, or \
                 give the key --upstream-key-env",
                here = self.here()
            )),
        }
    }

    /// Warnings of all keys that are in use, for the log.
    pub fn credential_warnings(&self) -> Vec<String> {
        let (mut without, mut unset) = (Vec::new(), Vec::new());
        // there may be a hundred thousand keys: what they share is looked up once
        let of_teams = self.access.team_variables();
        let of_none = self.outlook(None);
        for key in self.access.keys() {
            if key.is_revoked() {
                continue;
            }
            let of_team = || of_teams.get(key.team()?).map(String::as_str);
            let outlook = match key.upstream_variable().or_else(of_team) {
                Some(variable) => &self.outlook(Some(variable.to_owned())),
                None => &of_none,
            };
            match outlook {
                Outlook::Given => {}
                Outlook::Unset(variable) => unset.push((key, variable.clone())),
                Outlook::None => without.push(key),
            }
        }
        let mut warnings = Vec::new();
        if let Some(first) = without.first() {
            warnings.push(format!(
                "no credential for the upstream, neither in UPSTREAM_API_KEYS nor of a key or its team, for {}: it \
                 refuses their requests (401), unless clients send a credential of their own and the key as \
                 x-proxy-key; set UPSTREAM_API_KEYS",
                counted(first, without.len())
            ));
        }
        if let Some((first, variable)) = unset.first() {
            warnings.push(format!(
                "{variable} is not set, which holds the credential for the upstream of {}: their requests are \
                 refused; set it and restart the proxy",
                counted(first, unset.len())
            ));
        }
        warnings
    }

    /// The outlook of keys whose credential this variable holds, be it their own or their team's.
    fn outlook(&self, variable: Option<String>) -> Outlook {
        match variable {
            Some(variable) if self.access.has_variable(&variable) => Outlook::Given,
            Some(variable) => Outlook::Unset(variable),
            // unknown: no reason to warn
            None if self.settings().has_credential.unwrap_or(true) => Outlook::Given,
            None => Outlook::None,
        }
    }

    /// The place whose environment was looked at.
    fn here(&self) -> &'static str {
        match self.boot.is_empty() {
            true => "in this environment, where no proxy runs",
            false => "on the proxy",
        }
    }
}

/// A key, and the number of others.
fn counted(first: &Key, number: usize) -> String {
    match number {
        1 => format!("key {}", first.name()),
        _ => format!("{number} keys ({}, …)", first.name()),
    }
}
