//! Watch over the body of a request with a key: one pass for its models, and for what an edit needs of it.

use std::{cell::RefCell, rc::Rc};

use crate::{
    edit::Scan,
    metering::{ModelWatch, RequestDetails},
};

/// Watch over a body, shared by the body, the decision and the edit.
pub(super) type SharedWatch = Rc<RefCell<BodyWatch>>;

/// Watch over a body.
pub(super) struct BodyWatch {
    pub(super) models: ModelWatch,
    /// The scan of a body that is to be edited.
    scan: Option<Scan>,
}

impl BodyWatch {
    /// Makes a watch before the first byte; with a scan, if the body is to be edited.
    pub(super) fn new(models: ModelWatch, is_edited: bool) -> Self {
        let scan = is_edited.then(Scan::new);
        Self { models, scan }
    }

    /// Reads the next bytes of the body.
    pub(super) fn push(&mut self, content: &[u8]) {
        match &mut self.scan {
            None => self.models.push(content),
            Some(scan) => self.models.push_with(content, scan),
        }
    }

    /// Details that the scan has found so far, if there is one.
    pub(super) fn asked(&self) -> Option<RequestDetails> {
        self.scan.as_ref().map(|scan| scan.asked().clone())
    }

    /// The scan of a body that has ended. None if the body is not one JSON text.
    pub(super) fn take_scan(&mut self) -> Option<Scan> {
        self.scan.take().filter(|_| self.models.is_complete())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;
    use crate::{
        config::{EditMode, EditTarget},
        edit::BodyBuffer,
    };

    /// The edited body in these chunks, and what the watch says: each by a pass of its own, or both by one.
    fn edited(body: &[u8], size: usize, is_one_pass: bool) -> (Vec<u8>, String) {
        let mut watch = BodyWatch::new(ModelWatch::new(), is_one_pass);
        let (mode, target) = (EditMode::InsertIfAbsent, EditTarget::Prompt);
        let mut hold = match is_one_pass {
            true => BodyBuffer::unscanned(mode, target),
            false => BodyBuffer::new(mode, target),
        };
        for chunk in body.chunks(size) {
            watch.push(chunk);
            hold.push(Bytes::copy_from_slice(chunk));
        }
        watch.models.end();
        let asked = hold.asked().or_else(|| watch.asked());
        if is_one_pass {
            hold.scanned(watch.take_scan());
        }
        let (body, outcome) = hold.finish(&Bytes::from_static(b"\"new\""));
        let models = &watch.models;
        let told = (models.model(), models.max_tokens(), models.tools());
        (body.concat(), format!("{outcome:?} {asked:?} {told:?}"))
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_two_find(
            members in prop::collection::vec(prop::sample::select(MEMBERS), 0..9),
            end in prop::sample::select(&["}", "", "x}", "} ", "]"][..]),
            size in 1_usize..40,
        ) {
            let body = format!("{{{}{end}", members.join(","));
            prop_assert_eq!(
                edited(body.as_bytes(), size, true),
                edited(body.as_bytes(), size, false)
            );
        }
    }

    const MEMBERS: &[&str] = &[
        r#""model":"m""#,
        r#""mod\u0065l":"m""#,
        r#""Model":"other""#,
        r#""model":["m"]"#,
        r#""stream":true"#,
        r#""max_tokens":1000"#,
        r#""max_tokens":{"model":1}"#,
        r#""system":"old""#,
        r#""system":[{"type":"text","text":"You are Claude Code"}]"#,
        r#""system":[{"type":"text","text":"x","cache_control":{"type":"ephemeral","ttl":"1h"}},{"text":"y"}]"#,
        r#""sys\u0074em":[{"te\u0078t":"old"}]"#,
        r#""tools":[{"name":"advisor","model":"big"},{"model":7}]"#,
        r#""messages":[{"content":"model","system":[{"text":"z"}]}]"#,
        r#""metadata":null"#,
    ];
}
