//! Loads a configuration: merges what was set, parses it, and judges it as a whole.
//!
//! It stands on top of the other files: [`ConfigSource::load`] for a start, [`ConfigSource::load_after`] for a
//! reload, and the two questions of the health check.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

use super::{
    error::ConfigErrors,
    loaded::Loaded,
    loops, loss,
    merge::MergedSettings,
    model::{AccessSettings, Listen},
    origin::Setting,
    parse,
    prices::Prices,
    source::ConfigSource,
};

impl ConfigSource {
    /// Reads everything anew and gives a configuration, or all faults at once.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut merged = self.merge();
        let unwritable = self.unwritable(&merged);
        merged.faults.extend(unwritable);
        self.judge(merged)
    }

    /// The configuration of what was merged, or all faults.
    fn judge(&self, merged: MergedSettings) -> Result<Loaded, ConfigErrors> {
        let loaded = parse::load(merged, &self.root, self.memory)?;
        if self.are_sockets_passed() {
            return Ok(loaded);
        }
        let faults = loops::faults(&loaded.config, &loaded.settings);
        match faults.is_empty() {
            true => Ok(loaded),
            false => Err(ConfigErrors {
                faults,
                warnings: loaded.warnings,
            }),
        }
    }

    /// Reads everything anew for a reload after `last`, which is in effect.
    pub fn load_after(&self, last: &Loaded) -> Result<Loaded, ConfigErrors> {
        let mut merged = self.merge();
        if let Some(lost) = loss::lost_file(last, &merged) {
            // what its settings leave behind where they are missing is no news
            merged.faults.push(lost);
            let MergedSettings {
                faults, warnings, ..
            } = merged;
            return Err(ConfigErrors { faults, warnings });
        }
        let lost = loss::lost_settings(last, &merged, &self.root);
        merged.faults.extend(lost);
        self.judge(merged)
    }

    /// Every variable with the text that counts and its origin, in the order of the table, even if some are
    /// invalid.
    pub fn settings(&self) -> Vec<Setting> {
        self.merge().settings
    }

    /// The listeners, even if other settings have errors: the health check asks there.
    pub fn listen(&self) -> Result<Listen, ConfigErrors> {
        parse::listen(self.merge())
    }

    /// The certificate that the server shows, if one is named: the health check compares.
    pub fn certificate(&self) -> Result<Option<CertificateDer<'static>>, ConfigErrors> {
        parse::certificate(self.merge(), &self.root)
    }

    /// The directory of keys, and their settings, for verbs that work beside the server; faults of other
    /// variables do not matter.
    pub fn access(&self) -> Result<(Option<PathBuf>, AccessSettings), ConfigErrors> {
        parse::access(self.merge(), &self.root)
    }

    /// The prices, for those verbs.
    pub fn prices(&self) -> Result<Prices, ConfigErrors> {
        parse::prices_alone(self.merge(), &self.root)
    }

    /// The files that the configuration comes from, whether or not they exist.
    pub fn files(&self) -> Vec<PathBuf> {
        let merged = self.merge();
        let watched = merged.settings.iter().filter(|it| it.variable.is_watched);
        let named = watched.filter_map(|it| Some(self.root.join(it.text.as_deref()?)));
        [merged.env_file].into_iter().chain(named).collect()
    }
}
