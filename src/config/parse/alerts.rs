//! ALERT_WEBHOOK and its company to [`AlertSettings`].

use actix_web::http::Uri;

use super::reader::Reader;
use crate::config::{env::Settings, model::AlertSettings, options::AlertForm};

impl Reader {
    pub(super) fn alerts(&mut self, settings: &Settings) -> Option<AlertSettings> {
        let webhook = settings.alert_webhook.clone()?;
        if !settings.metering
            && let Some(setting) = self.merged.setting("ALERT_WEBHOOK")
        {
            let origin = setting.origin.clone();
            let message = "is told nothing of tokens and cost, since METERING is off";
            self.merged
                .warn("ALERT_WEBHOOK", origin, message.to_owned());
        }
        let form = settings.alert_webhook_form;
        let form = form.unwrap_or_else(|| match is_slack(webhook.expose()) {
            true => AlertForm::Slack,
            false => AlertForm::Json,
        });
        Some(AlertSettings {
            webhook,
            form,
            interval: settings.alert_interval,
            error_rate: settings.alert_error_rate,
            first_token: settings.alert_first_token,
            cost_per_hour: settings.alert_cost_per_hour,
        })
    }
}

/// Tells whether a URL is one of Slack.
fn is_slack(url: &str) -> bool {
    let uri = url.parse::<Uri>();
    let host = uri.as_ref().ok().and_then(Uri::host).unwrap_or_default();
    let host = host.to_ascii_lowercase();
    host == "slack.com" || host.ends_with(".slack.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slack_is_known_by_its_host() {
        for (url, expected) in [
            ("https://hooks.slack.com/services/T0/B0/x", true),
            ("https://HOOKS.SLACK.COM/services/x", true),
            ("https://notslack.com/x", false),
            ("https://chat.example/hooks.slack.com", false),
        ] {
            assert_eq!(is_slack(url), expected, "{url}");
        }
    }
}
