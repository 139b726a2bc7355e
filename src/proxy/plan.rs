//! The plan of a request: what becomes of its body, and how the head speaks of it.

use std::{rc::Rc, time::Instant};

use actix_web::dev::Payload;

use super::{edit_memory::MemoryShare, field, handshake::TunnelHandshake};
use crate::{
    config::{Edit, Live},
    edit,
    label::Label,
    upstream::{
        pieces::Pieces,
        request::{Body, BodyCoding, BufferedBody, Continue, StreamedBody, Switch},
    },
    wire::{body::Framing, head::RequestHead},
};

/// Treatment of a request's body.
pub(super) enum Treatment<'a> {
    /// The request asks for a tunnel.
    Tunnel,
    /// The request has no body.
    Empty,
    /// The body is buffered and edited.
    Edit(&'a Edit),
    /// The body passes unmodified.
    Pass {
        /// The reason, for a message that the edit would apply to.
        unedited: Option<Label>,
    },
}

impl<'a> Treatment<'a> {
    /// Decides by the head alone.
    pub(super) fn of(head: &RequestHead, is_messages: bool, live: &'a Live) -> Self {
        if head.upgrade.is_some() {
            return Self::Tunnel;
        }
        if head.framing == Framing::None {
            return Self::Empty;
        }
        match live.edit.as_ref().filter(|_| is_messages) {
            None => Self::Pass { unedited: None },
            Some(edit) => match passes(head, edit) {
                None => Self::Edit(edit),
                unedited => Self::Pass { unedited },
            },
        }
    }
}

/// Plan for a request: its body towards the upstream, and the fields of the head that describe it.
pub(super) struct Plan {
    pub(super) body: Body,
    pub(super) framing: field::OutgoingFraming,
    pub(super) expect: field::ExpectHandling,
    pub(super) memory: Option<MemoryShare>,
    /// Outcome of the edit, for a message that may be edited.
    pub(super) edit: Option<Label>,
    /// End of the wait for a buffered body; only if telemetry observes the exchange.
    pub(super) complete_at: Option<Instant>,
    pub(super) tunnel: Option<TunnelHandshake>,
}

impl Plan {
    pub(super) fn nothing() -> Self {
        let (framing, expect) = (
            field::OutgoingFraming::Unsaid,
            field::ExpectHandling::Answered,
        );
        Self {
            body: Body::None,
            framing,
            expect,
            memory: None,
            edit: None,
            complete_at: None,
            tunnel: None,
        }
    }

    /// Plans a tunnel: the data after the head waits for the upstream's 101.
    pub(super) fn tunnel(head: &RequestHead, payload: Payload) -> Self {
        let asked = TunnelHandshake::of(head);
        let framing = match head.fields.value("content-length") {
            Some(_) => field::OutgoingFraming::Exactly(0),
            None => field::OutgoingFraming::Unsaid,
        };
        Self {
            body: Body::Tunnel(Switch {
                protocols: asked.protocols(),
                payload,
                notes: Rc::clone(&head.notes),
            }),
            framing,
            tunnel: Some(asked),
            ..Self::nothing()
        }
    }

    /// A body that passes as it is.
    pub(super) fn pass(
        head: &RequestHead,
        payload: Payload,
        unedited: Option<Label>,
        live: &Live,
    ) -> Self {
        if let Some(reason) = unedited
            && live.debug
        {
            log::debug!(
                "[System Replacement] unchanged reason={reason} framing={:?}",
                head.framing
            );
        }
        Self {
            edit: unedited,
            ..Self::stream(head, payload)
        }
    }

    /// Describes the body's treatment, for the log.
    pub(super) fn describe(&self) -> &'static str {
        match &self.body {
            Body::None => "none",
            Body::Held(BufferedBody {
                coding: BodyCoding::Length,
                ..
            }) => "held length",
            Body::Held(BufferedBody {
                coding: BodyCoding::Chunked,
                ..
            }) => "held chunked",
            Body::Streamed(StreamedBody {
                coding: BodyCoding::Length,
                ..
            }) => "streamed length",
            Body::Streamed(StreamedBody {
                coding: BodyCoding::Chunked,
                ..
            }) => "streamed chunked",
            Body::Tunnel(_) => "tunnel",
        }
    }

    pub(super) fn stream(head: &RequestHead, payload: Payload) -> Self {
        let go_ahead = if head.expects_continue {
            Continue::Expected
        } else {
            Continue::NotExpected
        };
        Self::streamed(head, Pieces::new(), payload, go_ahead)
    }

    pub(super) fn streamed(
        head: &RequestHead,
        first: Pieces,
        payload: Payload,
        go_ahead: Continue,
    ) -> Self {
        let (framing, coding) = match head.framing {
            Framing::Length(length) => {
                (field::OutgoingFraming::Exactly(length), BodyCoding::Length)
            }
            Framing::Chunked | Framing::UntilClose | Framing::None => {
                (field::OutgoingFraming::Chunked, BodyCoding::Chunked)
            }
        };
        let expect = match go_ahead {
            Continue::Expected => field::ExpectHandling::Forward,
            Continue::NotExpected => field::ExpectHandling::Answered,
        };
        let notes = Rc::clone(&head.notes);
        let body = Body::Streamed(StreamedBody {
            first,
            payload,
            coding,
            go_ahead,
            notes,
        });
        Self {
            body,
            framing,
            expect,
            memory: None,
            edit: None,
            complete_at: None,
            tunnel: None,
        }
    }
}

/// Gives the reason for which a message is not edited, if its head has one.
fn passes(head: &RequestHead, edit: &Edit) -> Option<Label> {
    // of several codings or types, each has to allow it
    let all = |name: &str, is_fine: &dyn Fn(&[u8]) -> bool| {
        head.fields
            .iter()
            .filter(|field| field.is(name))
            .all(|field| is_fine(field.value))
    };
    if !all("content-encoding", &|coding| {
        edit::is_editable(None, Some(coding))
    }) {
        Some(Label::ContentCoding)
    } else if !all("content-type", &|media_type| {
        edit::is_editable(Some(media_type), None)
    }) {
        Some(Label::NotJson)
    } else if matches!(head.framing, Framing::Length(length) if length > edit.max_body) {
        Some(Label::TooLarge)
    } else {
        None
    }
}
