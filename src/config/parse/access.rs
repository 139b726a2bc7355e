//! ACCESS and its company to [`AccessSettings`]: keys and spend need a place, and limits need metering.

use std::path::Path;

use super::reader::Reader;
use crate::config::{
    env::Settings, model::AccessSettings, options::AccessMode, scalar::InvalidValue,
};

impl Reader {
    pub(super) fn access(&mut self, settings: &Settings, root: &Path) -> AccessSettings {
        let mode = settings.access.unwrap_or_default();
        let is_asked_for = matches!(mode, AccessMode::Optional | AccessMode::Required);
        if is_asked_for && settings.data_dir.is_none() && !self.is_faulty("DATA_DIR") {
            let bad =
                InvalidValue::because("is set without DATA_DIR, where keys and spend are kept")
                    .hint("set DATA_DIR to a directory, or ACCESS=off");
            self.fault("ACCESS", bad);
        }
        if is_asked_for
            && !settings.metering
            && let Some(setting) = self.merged.setting("METERING")
        {
            let origin = setting.origin.clone();
            let message = "requests with a key are metered nevertheless, since their limits count \
                           tokens; only the rest is not";
            self.merged.warn("METERING", origin, message.to_owned());
        }
        AccessSettings {
            mode,
            pepper: settings.access_pepper.clone(),
            contact: settings.limits_contact.clone(),
            webhook: settings.limits_webhook.clone(),
            state: self.state(settings, root),
            replicas: settings.replicas,
        }
    }
}
