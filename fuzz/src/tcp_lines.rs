//! Raw lines: the same lines come out however the network cuts the stream, memory is bounded, and
//! every line is a record or a dead letter.

use bytes::BytesMut;
use palisade_ingest::connection::Protocol;
use palisade_ingest::lines::LineCutter;
use palisade_ingest::submit::{Body, DeadLetter};
use palisade_ingest::tcp::Lines;

const MOST: usize = 32;

fn cut(data: &[u8], seed: Option<u8>) -> (Vec<Vec<u8>>, Vec<DeadLetter>) {
    let mut cutter = LineCutter::new(MOST);
    let mut buffer = BytesMut::new();
    let (mut lines, mut dead) = (Vec::new(), Vec::new());
    let pieces = seed.map_or_else(|| vec![data], |seed| crate::pieces(data, seed));
    let count = pieces.len();
    for (at, piece) in pieces.into_iter().chain([&[][..]]).enumerate() {
        buffer.extend_from_slice(piece);
        let cut = cutter.cut(&mut buffer, at == count);
        assert!(buffer.len() <= MOST + 1, "{} bytes wait", buffer.len());
        lines.extend(cut.lines.iter().map(|line| cut.body[line.clone()].to_vec()));
        dead.extend(cut.dead);
    }
    assert!(buffer.is_empty());
    assert!(lines.iter().all(|line| line.len() <= MOST && !line.contains(&b'\n')));
    (lines, dead)
}

pub fn run(data: &[u8]) {
    let Some((head, rest)) = crate::steer::<1>(data) else { return };
    let (whole, whole_dead) = cut(rest, None);
    let (lines, dead) = cut(rest, Some(head[0]));
    assert_eq!(lines, whole);
    assert_eq!(dead.len(), whole_dead.len());
    for (one, other) in dead.iter().zip(&whole_dead) {
        let shorter = one.raw.len().min(other.raw.len());
        assert_eq!(one.raw[..shorter], other.raw[..shorter]);
    }
    // Every line is in exactly one body of the listener.
    let mut protocol = Lines::new(MOST);
    let mut buffer = BytesMut::new();
    for piece in crate::pieces(rest, head[0]) {
        buffer.extend_from_slice(piece);
        protocol.feed(&mut buffer, false, 0);
    }
    protocol.feed(&mut buffer, true, 0);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut buried = 0;
    for body in protocol.drain() {
        match &body {
            Body::DeadLetters(letters) => buried += letters.len(),
            _ => {
                for index in 0..body.records().expect("lines are counted") {
                    let (raw, _) = body.raw(index as u64).expect("a line is in its body");
                    seen.push(raw.to_vec());
                }
            }
        }
    }
    seen.sort();
    let mut expected = whole;
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(buried, whole_dead.len());
    assert_eq!(protocol.kept(), 0);
}
