//! Slack's incoming webhooks with Block Kit blocks. In texts of type `mrkdwn` the characters `&`, `<` and `>` are
//! escaped as Slack asks, so nothing in an alert can mention people or make links; `plain_text` is shown as it is.
//! Slack's bounds: a header 150 characters, a text of a section 3,000, a field 2,000, ten fields.

use super::{Notification, shorten, time};
use crate::alert::State;
use serde_json::{Value, json};

/// Escapes a text for `mrkdwn`, and takes the marks of formatting their meaning.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // A zero width space keeps a mark from beginning anything.
            '*' | '_' | '~' | '`' => out.extend([c, '\u{200b}']),
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The body.
#[must_use]
pub fn body(notification: &Notification) -> Value {
    let alert = &notification.alert;
    let retracted = alert.state == State::Retracted;
    let word = if retracted { "RETRACTED" } else { alert.severity.as_str() };
    let title: String = alert.title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let header = shorten(&format!("[{}] {title}", word.to_uppercase()), 150);
    let field = |name: &str, value: &str| json!({"type": "mrkdwn", "text": format!("*{name}*\n{}", shorten(&escaped(value), 1900))});
    let mut fields = vec![field("Severity", alert.severity.as_str())];
    for (name, value) in [("User", &alert.user), ("Host", &alert.host), ("Source", &alert.src_ip)] {
        fields.extend(value.as_deref().map(|value| field(name, value)));
    }
    fields.push(field("Time", &time(alert.time)));
    fields.push(field("Rule", &alert.rule_id));
    if !alert.tags.is_empty() {
        fields.push(field("Tags", &alert.tags.join(", ")));
    }
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": header, "emoji": false}}),
        json!({"type": "section", "fields": fields}),
    ];
    let reasons: Vec<String> = match retracted {
        true => vec!["This alert was taken back.".to_owned()],
        false => alert.reasons.iter().map(|reason| format!("• {}", escaped(reason))).collect(),
    };
    if !reasons.is_empty() {
        let text = shorten(&reasons.join("\n"), 2900);
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": text}}));
    }
    let mut context = vec![format!("{} · {} records", alert.key(), alert.evidence_total)];
    if notification.suppressed > 0 {
        context.push(format!("{} more since the last message", notification.suppressed));
    }
    if alert.incomplete {
        context.push("may be incomplete".to_owned());
    }
    if let Some(link) = &notification.link {
        context.push(format!("<{}|open>", link.replace(['<', '>', '|'], "")));
    }
    let context = context.join(" · ");
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": context}]}));
    json!({"text": escaped(&header), "blocks": blocks})
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_message_is_the_golden_one() {
        let expected = json!({
            "text": "[HIGH] Shell &lt;b&gt;&amp; pipe | \\ = \"x\" next",
            "blocks": [
                {"type": "header", "text": {"type": "plain_text", "emoji": false,
                    "text": "[HIGH] Shell <b>& pipe | \\ = \"x\" next"}},
                {"type": "section", "fields": [
                    {"type": "mrkdwn", "text": "*Severity*\nhigh"},
                    {"type": "mrkdwn", "text": "*User*\no'brien@corp"},
                    {"type": "mrkdwn", "text": "*Host*\nWS-01"},
                    {"type": "mrkdwn", "text": "*Source*\n203.0.113.9"},
                    {"type": "mrkdwn", "text": "*Time*\n2026-01-05T09:00:00.000Z"},
                    {"type": "mrkdwn", "text": "*Rule*\n8d1487f1|7664"},
                    {"type": "mrkdwn", "text": "*Tags*\nattack.t1059.001"},
                ]},
                {"type": "section", "text": {"type": "mrkdwn", "text": "• because a=b\n• C:\\x|y"}},
                {"type": "context", "elements": [{"type": "mrkdwn", "text":
                    "00112233445566778899aabbccddeeff-2 · 2 records · 3 more since the last message · <https://p.example.com/#/alerts/00112233445566778899aabbccddeeff|open>"}]},
            ],
        });
        assert_eq!(body(&samples::notification()), expected);
        let back = body(&samples::retraction());
        assert!(back["text"].as_str().unwrap().starts_with("[RETRACTED]"));
        assert_eq!(back["blocks"][2]["text"]["text"], "This alert was taken back.");
    }

    #[test]
    fn nothing_in_an_alert_mentions_people_and_bounds_hold() {
        let mut hostile = samples::notification();
        hostile.alert.title = "<!channel> ".repeat(500);
        hostile.alert.user = Some("<@U123> *bold* ".repeat(1000));
        hostile.alert.reasons = vec!["<https://evil|click> ".repeat(200); 50];
        hostile.link = Some("https://x/|<a>".into());
        let text = body(&hostile);
        let blocks = text["blocks"].as_array().unwrap();
        assert!(blocks[0]["text"]["text"].as_str().unwrap().chars().count() <= 150);
        for field in blocks[1]["fields"].as_array().unwrap() {
            assert!(field["text"].as_str().unwrap().chars().count() <= 2000);
        }
        assert!(blocks[1]["fields"].as_array().unwrap().len() <= 10);
        assert!(blocks[2]["text"]["text"].as_str().unwrap().chars().count() <= 3000);
        let written = text.to_string();
        // The header is plain text; everywhere else only our own link has an angle bracket.
        let marked = written.replace(blocks[0]["text"]["text"].as_str().unwrap(), "");
        assert_eq!(marked.matches('<').count(), 1, "{marked}");
        assert!(marked.contains("<https://x/a|open>"));
    }
}
