//! Raw lines over TCP: a line that begins with `{` is a JSON record, any other a message.

use crate::connection::{Protocol, push_dead};
use crate::lines::LineCutter;
use crate::submit::{Body, BulkItem, DeadLetter};
use bytes::{Bytes, BytesMut};
use std::ops::Range;
use std::sync::Arc;

/// The most lines of one submission: a refused one is found by its index.
const MAX_LINES: usize = 10_000;

/// Lines of one connection.
#[derive(Debug)]
pub struct Lines {
    cutter: LineCutter,
    stretches: Vec<(Bytes, Vec<Range<usize>>)>,
    dead: Vec<DeadLetter>,
    kept: usize,
}

impl Lines {
    /// Lines of at most this many bytes.
    #[must_use]
    pub fn new(max_line: usize) -> Self {
        Self { cutter: LineCutter::new(max_line), stretches: Vec::new(), dead: Vec::new(), kept: 0 }
    }
}

impl Protocol for Lines {
    fn feed(&mut self, buffer: &mut BytesMut, end: bool, _now: i64) {
        let cut = self.cutter.cut(buffer, end);
        self.kept += cut.body.len() + cut.lines.len() * size_of::<Range<usize>>();
        self.kept += cut.dead.iter().map(DeadLetter::held_bytes).sum::<usize>();
        self.dead.extend(cut.dead);
        if !cut.lines.is_empty() {
            self.stretches.push((cut.body, cut.lines));
        }
    }

    fn kept(&self) -> usize {
        self.kept
    }

    fn drain(&mut self) -> Vec<Body> {
        self.kept = 0;
        let mut bodies = Vec::new();
        let mut stretches = std::mem::take(&mut self.stretches);
        let (body, lines) = match (stretches.len(), stretches.pop()) {
            (_, None) => (Bytes::new(), Vec::new()),
            (1, Some(only)) => only,
            (_, Some(last)) => {
                stretches.push(last);
                join(&stretches)
            }
        };
        let is_json = |line: &Range<usize>| body.get(line.start) == Some(&b'{');
        for lines in lines.chunks(MAX_LINES) {
            let (json, text): (Vec<_>, Vec<_>) = lines.iter().cloned().partition(is_json);
            if !json.is_empty() {
                let items = json.into_iter().map(|range| BulkItem { range, id: None }).collect();
                bodies.push(Body::BulkItems { body: body.clone(), items: Arc::new(items) });
            }
            if !text.is_empty() {
                bodies.push(Body::Lines { body: body.clone(), ranges: Arc::new(text) });
            }
        }
        push_dead(&mut bodies, &mut self.dead);
        bodies
    }
}

/// One body out of several stretches, so that many small reads make one submission.
fn join(stretches: &[(Bytes, Vec<Range<usize>>)]) -> (Bytes, Vec<Range<usize>>) {
    let mut body = Vec::with_capacity(stretches.iter().map(|(bytes, _)| bytes.len()).sum());
    let mut lines = Vec::with_capacity(stretches.iter().map(|(_, lines)| lines.len()).sum());
    for (bytes, own) in stretches {
        let start = body.len();
        lines.extend(own.iter().map(|line| line.start + start..line.end + start));
        body.extend_from_slice(bytes);
    }
    (Bytes::from(body), lines)
}
