//! Streams of syslog: messages are bounded, no byte is counted twice, what was sent in counted frames
//! comes out, and without octet counts it does not matter how the network cuts the stream.

use bytes::BytesMut;
use palisade_ingest::syslog::framing::{Framed, Framer};

const MOST: usize = 64;

fn cut(data: &[u8], seed: Option<u8>) -> Framed {
    let mut framer = Framer::new(MOST);
    let mut buffer = BytesMut::new();
    let mut all = Framed::default();
    let pieces = seed.map_or_else(|| vec![data], |seed| crate::pieces(data, seed));
    let last = pieces.len().saturating_sub(1);
    for (at, piece) in pieces.iter().enumerate() {
        buffer.extend_from_slice(piece);
        let framed = framer.cut(&mut buffer, false);
        // The longest message and its count may wait for its end.
        assert!(at == last || buffer.len() <= MOST + 16, "{} bytes wait", buffer.len());
        all.messages.extend(framed.messages);
        all.dead.extend(framed.dead);
    }
    let framed = framer.cut(&mut buffer, true);
    assert!(buffer.is_empty());
    all.messages.extend(framed.messages);
    all.dead.extend(framed.dead);
    assert!(all.messages.iter().all(|message| message.len() <= MOST));
    let kept = all.messages.iter().map(|message| message.len()).sum::<usize>()
        + all.dead.iter().map(|letter| letter.raw.len()).sum::<usize>();
    assert!(kept <= data.len(), "{kept} bytes out of {}", data.len());
    all
}

pub fn run(data: &[u8]) {
    let Some((head, rest)) = crate::steer::<1>(data) else { return };
    let pieces = cut(rest, Some(head[0]));
    let whole = cut(rest, None);
    // An octet count is judged by what follows, which may not be there yet.
    if !rest.contains(&b'<') {
        assert_eq!(pieces.messages, whole.messages);
        assert_eq!(pieces.dead, whole.dead);
    }
    // Messages in counted frames come out as they went in.
    let messages: Vec<Vec<u8>> = rest
        .split(|byte| *byte == b'\n')
        .take(20)
        .map(|part| [b"<34>x", &part[..part.len().min(40)], b"y"].concat())
        .collect();
    let stream: Vec<u8> = messages
        .iter()
        .flat_map(|message| [format!("{} ", message.len()).as_bytes(), message].concat())
        .collect();
    for seed in [Some(head[0]), None] {
        let framed = cut(&stream, seed);
        assert_eq!(framed.messages, messages);
        assert!(framed.dead.is_empty());
    }
}
