//! Body of a request whose key has rules on models: held until its model is known, and watched to its end.
//!
//! SDKs write the model last, Claude Code first. What is held is bounded as for the edit: by
//! `MAX_EDIT_BODY`, `EDIT_MEMORY` and the time that the body takes; a body whose model stands within its
//! first 64 KiB takes none of that memory. The rest streams, and is cut before its end if it names another
//! model: the upstream never gets a complete request whose model the proxy did not judge.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::{BoxedPayloadStream, Payload, error::PayloadError};
use bytes::Bytes;
use futures_core::Stream;

use crate::{
    config::Live,
    edit,
    error::{DownstreamError, ProxyError},
    metering::{InvalidModel, ModelWatch, WatchedModel},
    proxy::{
        body_watch::{BodyWatch, SharedWatch},
        hold::BodyDeadline,
        inspection::SharedInspector,
        keyed::cutting::RunningKey,
        worker::Worker,
    },
    upstream::pieces::Pieces,
    wire::{
        body::Framing,
        chunks::ChunkBuffer,
        head::{BodyNotes, RequestHead, Version},
    },
};

/// Facts of a body that a grant depends on.
#[derive(Debug, Default)]
pub(in crate::proxy) struct ModelBody {
    pub(super) model: Option<Rc<str>>,
    pub(super) max_tokens: Option<u64>,
    /// Octets of the body; those that have come, where it does not tell.
    pub(super) octets: u64,
}

impl ModelBody {
    /// Facts that are known once the watch knows the model.
    ///
    /// # Errors
    /// The model cannot be told.
    pub(in crate::proxy) fn of(
        head: &RequestHead,
        watch: Option<&SharedWatch>,
    ) -> Result<Self, DownstreamError> {
        let octets = match head.framing {
            Framing::Length(length) => length,
            Framing::None | Framing::Chunked | Framing::UntilClose => head.notes.octets.get(),
        };
        let Some(watch) = watch else {
            return Ok(Self {
                octets,
                ..Self::default()
            });
        };
        let models = &watch.borrow().models;
        match models.model() {
            WatchedModel::Known(_) => Ok(Self {
                model: models.shared_model(),
                max_tokens: models.max_tokens(),
                octets,
            }),
            WatchedModel::Unknown => Err(DownstreamError::UnreadableModel),
            WatchedModel::Invalid(fault) => Err(error(fault)),
        }
    }
}

/// Watches over the body of a request, if its head lets the model be read; with a scan, if it is to be edited.
///
/// # Errors
/// There is no body, or it has a content coding.
pub(in crate::proxy) fn watch(
    head: &RequestHead,
    worker: &Worker,
    is_edited: bool,
) -> Result<SharedWatch, DownstreamError> {
    let mut codings = head.fields.iter().filter(|it| it.is("content-encoding"));
    let is_plain = codings.all(|coding| edit::is_editable(None, Some(coding.value)));
    match head.framing {
        Framing::None => Err(DownstreamError::UnreadableModel),
        _ if !is_plain => Err(DownstreamError::UnreadableModel),
        _ => {
            let models = ModelWatch::likely_of(worker.likely_model());
            Ok(Rc::new(RefCell::new(BodyWatch::new(models, is_edited))))
        }
    }
}

/// Holds the body until its model is known: what came of it by then.
pub(in crate::proxy) async fn hold(
    head: &RequestHead,
    payload: &mut Payload,
    watch: &SharedWatch,
    worker: &Worker,
    live: &Live,
) -> Result<Pieces, ProxyError> {
    let mut share = None;
    let mut arrival = BodyDeadline::new(live.timers.request_body);
    let mut held = ChunkBuffer::default();
    // the content that names the model, if nothing came before it: it leaves as it is
    let mut only = None;
    while is_unknown(watch)
        && let Some(content) = arrival.next(payload).await
    {
        let content = content?;
        let length = held.len() + content.len() as u64;
        if length > live.max_held_body {
            return Err(DownstreamError::UnreadableModel.into());
        }
        if length > FREE && is_unknown(watch) {
            head.notes.is_held.set(true);
            let share = share
                .get_or_insert_with(|| worker.edit_memory.share(head.framing, live.max_held_body));
            arrival.pause(share.grow_to(length).await?);
        }
        if held.is_empty() && !is_unknown(watch) {
            only = Some(content);
            break;
        }
        held.push(content);
    }
    head.notes.is_held.set(false);
    let held = match only {
        Some(content) => Pieces::from_iter([content]),
        None => held.finish(),
    };
    Ok(match share {
        // the rest may take hours: each piece pays until it has left
        Some(share) => share.tied_to(held),
        None => held,
    })
}

fn is_unknown(watch: &SharedWatch) -> bool {
    watch.borrow().models.model() == WatchedModel::Unknown
}

/// The body of a request with a key, which is watched and has no key in its trailer section.
pub(in crate::proxy) fn keyed(
    head: &RequestHead,
    payload: Payload,
    watch: Option<&SharedWatch>,
    look: Option<SharedInspector>,
    running: &Rc<RunningKey>,
    text: &[u8],
) -> Payload {
    let may_trail = head.framing == Framing::Chunked || head.version == Version::Http2;
    if watch.is_none() && !may_trail {
        return payload;
    }
    let payload: BoxedPayloadStream = Box::pin(KeyedBody {
        payload,
        watch: watch.map(Rc::clone),
        look,
        notes: Rc::clone(&head.notes),
        running: Rc::clone(running),
        text: may_trail.then(|| text.into()),
        tools: 0,
    });
    Payload::Stream { payload }
}

struct KeyedBody {
    payload: Payload,
    watch: Option<SharedWatch>,
    /// Telemetry, which the watch tells.
    look: Option<SharedInspector>,
    notes: Rc<BodyNotes>,
    running: Rc<RunningKey>,
    /// The key's text, where a trailer section may come that must not have it.
    text: Option<Box<[u8]>>,
    /// Models of tools that were judged.
    tools: usize,
}

impl KeyedBody {
    /// Judges what the watch saw in the last content.
    fn judge(&mut self, watch: &ModelWatch) -> Result<(), DownstreamError> {
        if let WatchedModel::Invalid(fault) = watch.model() {
            return Err(error(fault));
        }
        let new = watch.tools().get(self.tools..).unwrap_or_default();
        if new
            .iter()
            .any(|model| !self.running.key().allows_model(model))
        {
            return Err(DownstreamError::ToolModelDenied);
        }
        self.tools = watch.tools().len();
        Ok(())
    }

    /// The body has ended.
    fn end(&mut self) -> Result<(), DownstreamError> {
        if let Some(text) = &self.text {
            let mut trailers = self.notes.trailers.borrow_mut();
            let shows_key = |section: &mut Bytes| memchr::memmem::find(section, text).is_some();
            trailers.take_if(shows_key);
        }
        let Some(watch) = self.watch.clone() else {
            return Ok(());
        };
        let was_unknown = is_unknown(&watch);
        watch.borrow_mut().models.end();
        match watch.borrow().models.model() {
            // what was judged and breaks off is refused by every upstream
            WatchedModel::Invalid(fault) if was_unknown => Err(error(fault)),
            _ => Ok(()),
        }
    }
}

impl Stream for KeyedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.payload).poll_next(cx);
        let judged = match (&outcome, this.watch.clone()) {
            (Poll::Ready(Some(Ok(content))), Some(watch)) => {
                let mut watch = watch.borrow_mut();
                watch.push(content);
                if let Some(look) = &this.look {
                    watch.models.tell(look.borrow_mut().asked_mut());
                }
                this.judge(&watch.models)
            }
            (Poll::Ready(None), _) => this.end(),
            _ => Ok(()),
        };
        match judged {
            Ok(()) => outcome,
            Err(fault) => Poll::Ready(Some(Err(PayloadError::Io(io::Error::other(fault))))),
        }
    }
}

fn error(fault: InvalidModel) -> DownstreamError {
    match fault {
        InvalidModel::Contradictory => DownstreamError::ContradictoryModel,
        InvalidModel::NotJson | InvalidModel::Missing | InvalidModel::NotText => {
            DownstreamError::UnreadableModel
        }
    }
}

/// Octets of a body that are held without a share of `EDIT_MEMORY`: the bound of one stream
/// (docs/contract.md §4.3).
const FREE: u64 = 64 * 1024;
