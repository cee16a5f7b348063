//! Handing over records whose sender gets no answer (raw TCP, syslog).
//!
//! A busy gateway is tried again until it takes them, while the door stops reading: that is the
//! sender's backpressure. A record that is refused by its content becomes a dead letter with its
//! bytes and the reason, so nothing is lost silently.

use crate::http::reason;
use crate::metrics::Door;
use crate::submit::{Body, DeadLetter, Receipt, Submission, Submit, SubmitError};
use std::sync::Arc;
use std::time::Duration;

/// How long a door waits at most before it tries again.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Hands over a submission until it is durable; refused records become dead letters.
///
/// # Errors
/// [`SubmitError::Stopped`] when nothing is taken any more, and [`SubmitError::Refused`] when the
/// sender is not wanted: both end the connection.
pub async fn deliver(
    submit: &dyn Submit,
    submission: Submission,
    door: &Door,
) -> Result<(), SubmitError> {
    door.requests.inc();
    match until_taken(submit, &submission, door).await {
        Ok(receipt) => {
            door.records.inc_by(receipt.accepted);
            door.refused_records.inc_by(receipt.rejected_total);
            let letters = receipt
                .rejected
                .into_iter()
                .filter_map(|(index, reason)| {
                    let (raw, content_type) = submission.body.raw(index)?;
                    Some(DeadLetter { reason, content_type, raw })
                })
                .collect();
            bury(submit, &submission, letters, door).await
        }
        Err(error @ (SubmitError::Stopped | SubmitError::Refused(_))) => Err(error),
        Err(error) => {
            // The gateway cannot take the whole; each record is kept with the reason.
            let records = submission.body.records().unwrap_or(0);
            door.refused_records.inc_by(records as u64);
            let letters = (0..records as u64)
                .filter_map(|index| {
                    let (raw, content_type) = submission.body.raw(index)?;
                    Some(DeadLetter { reason: error.to_string(), content_type, raw })
                })
                .collect();
            bury(submit, &submission, letters, door).await
        }
    }
}

/// Hands dead letters over, with tenant and source of the submission they come from.
///
/// # Errors
/// As [`deliver`].
pub async fn bury(
    submit: &dyn Submit,
    from: &Submission,
    letters: Vec<DeadLetter>,
    door: &Door,
) -> Result<(), SubmitError> {
    if letters.is_empty() || matches!(from.body, Body::DeadLetters(_)) {
        return Ok(());
    }
    let count = letters.len() as u64;
    let submission = Submission { body: Body::DeadLetters(Arc::new(letters)), ..from.clone() };
    match until_taken(submit, &submission, door).await {
        Ok(_) => {
            door.dead_letters.inc_by(count);
            Ok(())
        }
        Err(error @ (SubmitError::Stopped | SubmitError::Refused(_))) => Err(error),
        Err(error) => {
            // A dead letter has nowhere else to go: say so loudly.
            tracing::error!(%error, count, "dead letters were not taken");
            door.refuse("dead_letters_refused");
            Ok(())
        }
    }
}

async fn until_taken(
    submit: &dyn Submit,
    submission: &Submission,
    door: &Door,
) -> Result<Receipt, SubmitError> {
    loop {
        match submit.submit(submission.clone()).await {
            Err(error @ (SubmitError::Busy { .. } | SubmitError::DiskLow)) => {
                door.refuse(reason(&error));
                let wait = match error {
                    SubmitError::Busy { retry_after_ms } => Duration::from_millis(retry_after_ms),
                    _ => LONGEST_WAIT,
                };
                tokio::time::sleep(wait.clamp(Duration::from_millis(1), LONGEST_WAIT)).await;
            }
            other => return other,
        }
    }
}
