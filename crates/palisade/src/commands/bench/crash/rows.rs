//! What SQL says after a run, and how it is compared.

use super::Report;
use super::lane::{Lane, Sent, number_of};
use crate::commands::bench::child::ServerProcess;
use crate::server::Failure;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

/// Rows and alerts of one run.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Of each lane each event's number with the bits of its anomaly score, sorted.
    lanes: Vec<Vec<(u64, Option<u32>)>>,
    /// Rows whose source or id nobody sent.
    strange: u64,
    /// Ids of alerts with their event and revision, and how many rows there are of each.
    alerts: BTreeMap<(String, String, i64), u32>,
}

#[derive(Deserialize)]
struct EventRow {
    source: String,
    event_id: Option<String>,
    anomaly_score: Option<f32>,
}

#[derive(Deserialize)]
struct AlertRow {
    alert_id: String,
    #[serde(default)]
    event_id: Option<String>,
    revision: i64,
}

impl Rows {
    /// Asks a server for everything.
    pub(super) fn read(server: &ServerProcess) -> Result<Self, Failure> {
        let mut rows = Self::default();
        // Nothing is grouped by the server: what is doubled in it must be seen here.
        ask(server, "SELECT source, event_id, anomaly_score FROM events", |row: EventRow| {
            let lane = row.source.strip_prefix("lane").and_then(|number| number.parse().ok());
            let number = row.event_id.as_deref().and_then(number_of);
            let (Some(lane), Some(number)) = (lane, number) else {
                rows.strange += 1;
                return;
            };
            // No more lanes than anyone asks for.
            if rows.lanes.len() <= lane && lane < 10_000 {
                rows.lanes.resize_with(lane + 1, Vec::new);
            }
            match rows.lanes.get_mut(lane) {
                Some(rows) => rows.push((number, row.anomaly_score.map(f32::to_bits))),
                None => rows.strange += 1,
            }
        })?;
        ask(server, "SELECT alert_id, event_id, revision FROM alerts", |row: AlertRow| {
            let alert = (row.alert_id, row.event_id.unwrap_or_default(), row.revision);
            *rows.alerts.entry(alert).or_default() += 1;
        })?;
        rows.lanes.iter_mut().for_each(|lane| lane.sort_unstable());
        Ok(rows)
    }

    /// Counts what is lost, doubled, or unknown to the senders.
    pub(super) fn compare_with_ledger(&self, sent: &[Sent], report: &mut Report) {
        report.unknown += self.strange;
        report.unknown +=
            self.lanes.iter().skip(sent.len()).map(|lane| lane.len() as u64).sum::<u64>();
        for (number, sent) in sent.iter().enumerate() {
            let found = self.lanes.get(number).map_or(&[][..], Vec::as_slice);
            let mut ids = sent.ids.clone();
            ids.sort_unstable();
            let mut found = found.iter().map(|(id, _)| *id).peekable();
            let source = Lane::source(u32::try_from(number).unwrap_or(u32::MAX));
            for id in ids {
                while found.next_if(|found| *found < id).is_some() {
                    report.unknown += 1;
                }
                let mut copies = 0;
                while found.next_if_eq(&id).is_some() {
                    copies += 1_u64;
                }
                match copies {
                    0 => {
                        report.lost += 1;
                        tell(report.lost, "lost", &source, id);
                    }
                    1 => {}
                    _ => {
                        report.doubled += 1;
                        tell(report.doubled, "doubled", &source, id);
                    }
                }
            }
            report.unknown += found.count() as u64;
        }
    }

    /// Counts the scores and alerts that differ from those of the undisturbed run.
    pub(super) fn compare_with(&self, calm: &Self, report: &mut Report) {
        for (number, (mine, theirs)) in self.lanes.iter().zip(&calm.lanes).enumerate() {
            let source = Lane::source(u32::try_from(number).unwrap_or(u32::MAX));
            let mut theirs = theirs.iter().peekable();
            for (id, score) in mine {
                while theirs.next_if(|(other, _)| other < id).is_some() {}
                // What only one run has is counted as lost or unknown already.
                let differs =
                    theirs.peek().is_some_and(|(other, calm)| other == id && calm != score);
                if differs {
                    report.scores_differ += 1;
                    tell(report.scores_differ, "scored otherwise", &source, *id);
                }
            }
        }
        let mut counts: BTreeMap<_, (u32, u32)> = BTreeMap::new();
        for (alert, copies) in &self.alerts {
            counts.entry(alert).or_default().0 = *copies;
        }
        for (alert, copies) in &calm.alerts {
            counts.entry(alert).or_default().1 = *copies;
        }
        for ((id, event, _), copies) in counts {
            if copies != (1, 1) {
                report.alerts_differ += 1;
                if report.alerts_differ <= 10 {
                    eprintln!(
                        "palisade: alert {id} of {event}: {copies:?} copies disturbed and not"
                    );
                }
            }
        }
        report.alerts = calm.alerts.values().map(|copies| u64::from(*copies)).sum();
    }
}

/// Names the first few.
fn tell(count: u64, what: &str, source: &str, id: u64) {
    if count <= 10 {
        eprintln!("palisade: {what}: {source} evt_{}_{:06}", id / 1_000_000, id % 1_000_000);
    }
}

/// Hands over each row of an answer.
fn ask<Row: for<'a> Deserialize<'a>>(
    server: &ServerProcess,
    sql: &str,
    mut take: impl FnMut(Row),
) -> Result<(), Failure> {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut answer = agent
        .post(format!("http://{}/api/v1/query", server.address))
        .header("content-type", "application/json")
        .send(serde_json::json!({"sql": sql, "format": "jsonl"}).to_string().as_bytes())?;
    if answer.status() != 200 {
        let text = answer.body_mut().read_to_string()?;
        // A table without rows may not be there yet.
        if text.contains("unknown_table") {
            return Ok(());
        }
        return Err(format!("{sql}: {text}").into());
    }
    for line in BufReader::new(answer.into_body().into_reader()).lines() {
        take(serde_json::from_str(&line?)?);
    }
    Ok(())
}
