//! Posts of an alert: JSON for programs, with a text for people, or the form of Slack.

use serde::Serialize;

use super::{condition::span, watch::Event};
use crate::{logging, webhook::Post};

/// Facts of a post.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    alert: &'static str,
    /// `firing` or `resolved`.
    status: &'static str,
    severity: &'static str,
    /// Model, upstream or limit that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    summary: String,
    /// Meaning, and what to do.
    description: &'static str,
    value: f64,
    threshold: f64,
    replica: String,
    /// Begin of the condition (RFC 3339).
    since: String,
    /// Seconds for which it held.
    #[serde(skip_serializing_if = "Option::is_none")]
    lasted_seconds: Option<u64>,
    /// Page of the dashboard.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Section of the manual.
    runbook: &'static str,
    #[serde(skip)]
    lasted: String,
}

/// A post as Slack and those like it take it.
#[derive(Debug, Serialize)]
pub(super) struct SlackPost {
    text: String,
    attachments: [Attachment; 1],
}

#[derive(Debug, Serialize)]
struct Attachment {
    color: &'static str,
    fallback: String,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    title_link: Option<String>,
    text: String,
    footer: String,
}

impl Facts {
    pub(super) fn of(event: &Event, replica: &str, dashboard: Option<&str>) -> Self {
        let facts = event.condition.alert.facts();
        let condition = &event.condition;
        Self {
            alert: facts.name,
            status: match event.lasted {
                None => "firing",
                Some(_) => "resolved",
            },
            severity: facts.severity.label(),
            subject: condition.subject.clone(),
            summary: condition.summary.clone(),
            description: facts.remedy,
            value: (condition.value * 100.0).round() / 100.0,
            threshold: condition.threshold,
            replica: replica.to_owned(),
            since: logging::timestamp(event.since),
            lasted_seconds: event.lasted.map(|lasted| lasted.as_secs()),
            url: dashboard.map(|dashboard| format!("{dashboard}{}", facts.page)),
            runbook: facts.runbook,
            lasted: event.lasted.map(span).unwrap_or_default(),
        }
    }

    pub(super) fn post(self) -> Post<Self> {
        let url = self.url.as_deref().map(|url| format!(" {url}"));
        let url = url.unwrap_or_default();
        let text = match self.status {
            "firing" => format!("{} {}{url}", self.headline(), self.description),
            _ => format!("{}{url}", self.headline()),
        };
        Post {
            text,
            event: "alert",
            facts: self,
        }
    }

    /// One line.
    fn headline(&self) -> String {
        let Self {
            severity,
            replica,
            summary,
            lasted,
            ..
        } = self;
        match self.status {
            "firing" => format!("[{severity}] anthropic-proxy at {replica}: {summary}"),
            _ => format!("[resolved] anthropic-proxy at {replica}, after {lasted}: {summary}"),
        }
    }

    pub(super) fn slack(&self) -> SlackPost {
        let color = match (self.status, self.severity) {
            ("resolved", _) => "good",
            (_, "critical") => "danger",
            (_, "info") => "#439fe0",
            _ => "warning",
        };
        let headline = escaped(&self.headline());
        SlackPost {
            text: headline.clone(),
            attachments: [Attachment {
                color,
                fallback: headline,
                title: self.alert.to_owned(),
                title_link: self.url.clone(),
                text: match self.status {
                    "firing" => escaped(self.description),
                    _ => String::new(),
                },
                footer: escaped(self.runbook),
            }],
        }
    }
}

/// Slack's control characters as text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
