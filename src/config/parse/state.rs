//! STATE_URL and its company to [`RedisSettings`]: the store of several replicas. It reads the files of its
//! password and certificates.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::reader::Reader;
use crate::{
    config::{env::Settings, identity, options::AccessMode, read, scalar::InvalidValue},
    secret::Secret,
    state::{RedisIdentity, RedisSettings, RedisTls},
};

impl Reader {
    pub(super) fn state(&mut self, settings: &Settings, root: &Path) -> Option<Arc<RedisSettings>> {
        let files = [
            ("STATE_PASSWORD_FILE", &settings.state_password_file),
            ("STATE_CA_FILE", &settings.state_ca_file),
            ("STATE_CERT_FILE", &settings.state_cert_file),
            ("STATE_KEY_FILE", &settings.state_key_file),
        ];
        let Some(url) = &settings.state_url else {
            if !self.is_faulty("STATE_URL") {
                self.warn_without_url(&files);
            }
            return None;
        };
        if settings.data_dir.is_none() && !self.is_faulty("DATA_DIR") {
            let bad = InvalidValue::because("is set without DATA_DIR, where the audit is kept")
                .hint("set DATA_DIR to a directory of this replica");
            self.fault("STATE_URL", bad);
        }
        if settings.access == Some(AccessMode::Off)
            && let Some(setting) = self.merged.setting("STATE_URL")
        {
            let origin = setting.origin.clone();
            let message = "has no effect with ACCESS=off: keys and limits are what it shares";
            self.merged.warn("STATE_URL", origin, message);
        }
        let mut state = url.clone();
        if let Some(prefix) = &settings.state_prefix {
            state.prefix.clone_from(prefix);
        }
        let password_file = settings.state_password_file.as_deref();
        if let Some(password) = self.opened("STATE_PASSWORD_FILE", password_file, root, password) {
            if state.password.is_some() {
                let bad = InvalidValue::because("is set, and STATE_URL has a password, too")
                    .hint("remove one of them");
                self.fault("STATE_PASSWORD_FILE", bad);
            }
            state.password = Some(password);
            state.password_file = password_file.map(|path| root.join(path));
        }
        if let Some(tls) = &mut state.tls {
            *tls = self.certificates(settings, root);
        } else {
            for (name, file) in &files[1..] {
                if file.is_some() {
                    let bad = InvalidValue::because("is set, and STATE_URL does not speak TLS")
                        .hint("begin STATE_URL with rediss, or unset it");
                    self.fault(name, bad);
                }
            }
        }
        Some(Arc::new(state))
    }

    fn certificates(&mut self, settings: &Settings, root: &Path) -> RedisTls {
        let authorities = settings.state_ca_file.as_deref();
        let authorities = self.opened("STATE_CA_FILE", authorities, root, certificates);
        let chain = settings.state_cert_file.as_deref();
        let key = settings.state_key_file.as_deref();
        for (name, other, is_alone) in [
            (
                "STATE_CERT_FILE",
                "STATE_KEY_FILE",
                chain.is_some() && key.is_none(),
            ),
            (
                "STATE_KEY_FILE",
                "STATE_CERT_FILE",
                key.is_some() && chain.is_none(),
            ),
        ] {
            if is_alone {
                let bad = InvalidValue::because(format!("is set without {other}"))
                    .hint(format!("set {other}, too"));
                self.fault(name, bad);
            }
        }
        let chain = self.opened("STATE_CERT_FILE", chain, root, certificates);
        let key = self.opened("STATE_KEY_FILE", key, root, |path| {
            identity::key(path)?;
            Ok(Secret::new(&read::text(path)?))
        });
        RedisTls {
            authorities,
            identity: chain
                .zip(key)
                .map(|(chain, key)| RedisIdentity { chain, key }),
        }
    }

    fn warn_without_url(&mut self, files: &[(&'static str, &Option<PathBuf>)]) {
        for (name, file) in files {
            if file.is_some()
                && let Some(setting) = self.merged.setting(name)
            {
                let origin = setting.origin.clone();
                self.merged
                    .warn(name, origin, "has no effect without STATE_URL");
            }
        }
    }
}

/// The password in a file, without the line break after it.
fn password(path: &Path) -> Result<Secret, InvalidValue> {
    let text = read::text(path)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(InvalidValue::because("is empty")),
        text if text.contains('\n') => Err(InvalidValue::because("has more than one line")),
        text => Ok(Secret::new(text)),
    }
}

fn certificates(path: &Path) -> Result<Vec<u8>, InvalidValue> {
    identity::chain(path)?;
    Ok(read::text(path)?.into_bytes())
}
