//! Keys and people of the dashboard beside each other: a key has one role, and roles of people need a proxy.

use super::reader::Reader;
use crate::config::{env::Settings, origin::Origin, scalar::InvalidValue};

impl Reader {
    pub(super) fn check_sign_in(&mut self, settings: &Settings) {
        let keys = [
            ("DASHBOARD_API_KEY", &settings.dashboard_api_key),
            ("DASHBOARD_OPERATOR_KEY", &settings.dashboard_operator_key),
            ("DASHBOARD_VIEWER_KEY", &settings.dashboard_viewer_key),
        ];
        for (at, (name, key)) in keys.iter().enumerate() {
            let mut before = keys[..at].iter();
            let Some((other, _)) = before.find(|(_, other)| key.is_some() && *other == *key) else {
                continue;
            };
            let bad = InvalidValue::because(format!("is the same key as {other}"))
                .hint("make another one with `openssl rand -hex 24`: a key has one role");
            self.fault(name, bad);
        }
        if settings.admin_user_header == settings.admin_groups_header {
            let bad = InvalidValue::because("is the field of ADMIN_USER_HEADER, too")
                .hint("name the field that has the user's groups");
            self.fault("ADMIN_GROUPS_HEADER", bad);
        }
        let proxies = settings.admin_trusted_proxies.as_ref();
        if proxies.is_some_and(|proxies| !proxies.is_empty())
            || self.is_faulty("ADMIN_TRUSTED_PROXIES")
        {
            return;
        }
        for name in ["ADMIN_USER_HEADER", "ADMIN_GROUPS_HEADER", "ADMIN_ROLES"] {
            let Some(setting) = self.merged.setting(name) else {
                continue;
            };
            let origin = setting.origin.clone();
            if origin != Origin::Default {
                let message = "has no effect without ADMIN_TRUSTED_PROXIES: name the proxy there";
                self.merged.warn(name, origin, message);
            }
        }
    }
}
