//! Syslog on a connection (RFC 6587, RFC 5425).

use super::framing::Framer;
use super::{Context, parse};
use crate::connection::{Protocol, push_dead};
use crate::submit::{Body, DeadLetter, ParsedRecord};
use bytes::BytesMut;
use std::sync::Arc;

/// Syslog messages of one connection.
#[derive(Debug)]
pub struct Messages {
    framer: Framer,
    utc_offset_minutes: i32,
    records: Vec<ParsedRecord>,
    dead: Vec<DeadLetter>,
    kept: usize,
}

impl Messages {
    /// Messages of at most this many bytes, from a sender whose clock is ahead of UTC by this.
    #[must_use]
    pub fn new(max_message: usize, utc_offset_minutes: i32) -> Self {
        Self {
            framer: Framer::new(max_message),
            utc_offset_minutes,
            records: Vec::new(),
            dead: Vec::new(),
            kept: 0,
        }
    }
}

impl Protocol for Messages {
    fn feed(&mut self, buffer: &mut BytesMut, end: bool, now: i64) {
        let context = Context { now, utc_offset_minutes: self.utc_offset_minutes };
        let framed = self.framer.cut(buffer, end);
        for message in &framed.messages {
            let record = parse(message, &context).0;
            self.kept += record.held_bytes();
            self.records.push(record);
        }
        self.kept += framed.dead.iter().map(DeadLetter::held_bytes).sum::<usize>();
        self.dead.extend(framed.dead);
    }

    fn kept(&self) -> usize {
        self.kept
    }

    fn drain(&mut self) -> Vec<Body> {
        self.kept = 0;
        let mut bodies = Vec::new();
        if !self.records.is_empty() {
            bodies.push(Body::Records(Arc::new(std::mem::take(&mut self.records))));
        }
        push_dead(&mut bodies, &mut self.dead);
        bodies
    }
}
