//! Loads a configuration: merges what was set, parses it, and judges it as a whole.
//!
//! It stands on top of the other files: [`Source::load`] for a start, [`Source::load_after`] for a
//! reload, and the two questions of the health check.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;

use super::{
    fault::Faults, gather::Gathered, loaded::Loaded, loops, loss, model::Listen, source::Source,
    typed,
};

impl Source {
    /// Reads everything anew and gives a configuration, or all faults at once.
    pub fn load(&self) -> Result<Loaded, Faults> {
        let mut gathered = self.gather();
        let unwritable = self.unwritable(&gathered);
        gathered.faults.extend(unwritable);
        self.judge(gathered)
    }

    /// The configuration of what was gathered, or all faults.
    fn judge(&self, gathered: Gathered) -> Result<Loaded, Faults> {
        let loaded = typed::load(gathered, &self.root, self.memory)?;
        if self.are_sockets_passed() {
            return Ok(loaded);
        }
        let faults = loops::faults(&loaded.config, &loaded.settings);
        match faults.is_empty() {
            true => Ok(loaded),
            false => Err(Faults {
                faults,
                warnings: loaded.warnings,
            }),
        }
    }

    /// Reads everything anew for a reload after `last`, which is in effect.
    pub(super) fn load_after(&self, last: &Loaded) -> Result<Loaded, Faults> {
        let mut gathered = self.gather();
        if let Some(lost) = loss::lost_file(last, &gathered) {
            // what its settings leave behind where they are missing is no news
            gathered.faults.push(lost);
            let Gathered {
                faults, warnings, ..
            } = gathered;
            return Err(Faults { faults, warnings });
        }
        let lost = loss::lost_settings(last, &gathered, &self.root);
        gathered.faults.extend(lost);
        self.judge(gathered)
    }

    /// Where the server listens, whatever else is at fault: the health check asks there.
    pub fn listen(&self) -> Result<Listen, Faults> {
        typed::listen(&self.gather())
    }

    /// The certificate that the server shows, if one is named: the health check compares.
    pub fn certificate(&self) -> Result<Option<CertificateDer<'static>>, Faults> {
        typed::certificate(&self.gather(), &self.root)
    }

    /// The files that the configuration comes from, whether or not they exist.
    pub fn files(&self) -> Vec<PathBuf> {
        let gathered = self.gather();
        let mut files = vec![gathered.env_file.clone()];
        for name in [
            "HEADERS_FILE",
            "TLS_CERT_FILE",
            "TLS_KEY_FILE",
            "PRICES_FILE",
        ] {
            files.extend(gathered.text(name).map(|path| self.root.join(path)));
        }
        files
    }
}
