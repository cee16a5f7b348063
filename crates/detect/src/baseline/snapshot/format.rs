//! How one user and its numbers are written and read.

use super::super::profile::{Dimension, Profile, Value};
use super::{BaselineError, USER};

/// Writes one user: tag, slot `v`, position `v`, key u64, latest `z`, flags u8 (1 = cut), chances u8,
/// recent u16, recent_len u8, era `v`, events, outcomes, failures `v`; three dimensions (address,
/// location, type) of five `v` each with their list (length u8, then per value hash u32, packed `v`,
/// weight `v`, and for addresses the place u32); location_seconds, moved, moved_far, moved_quickly,
/// outcome_weight, four failing, hour_index `v`, hour_surprise f32 bits, hours_new `v`, 24 hour
/// weights `v`, 24 hour counts `v`, odd u16, three streaks `v`, scored `v`, nine surprises `v`.
pub(super) fn write_user(profile: &Profile<'_>, out: &mut Vec<u8>) {
    let head = &*profile.head;
    out.push(USER);
    varint(head.slot.into(), out);
    varint(head.position.into(), out);
    out.extend_from_slice(&head.key.to_le_bytes());
    varint(zigzag(head.latest), out);
    out.push(head.cut.into());
    out.push(head.chances);
    out.extend_from_slice(&head.recent.to_le_bytes());
    out.push(head.recent_len);
    for number in [head.era, head.events, head.outcomes, head.failures] {
        varint(number.into(), out);
    }
    let list = |dimension: &Dimension, values: &[Value], places: &[u32], out: &mut Vec<u8>| {
        let Dimension { count, weight, stay, lost, last } = *dimension;
        for number in [count, weight, stay, lost] {
            varint(number.into(), out);
        }
        out.extend_from_slice(&last.to_le_bytes());
        out.push(values.len() as u8);
        for (at, value) in values.iter().enumerate() {
            out.extend_from_slice(&value.hash.to_le_bytes());
            varint(value.packed().into(), out);
            varint(value.weight.into(), out);
            if let Some(place) = places.get(at) {
                out.extend_from_slice(&place.to_le_bytes());
            }
        }
    };
    list(&head.address, profile.address_list(), profile.places, out);
    list(&head.location, profile.location_list(), &[], out);
    list(&head.event_type, profile.type_list(), &[], out);
    for number in
        [head.location_seconds, head.moved, head.moved_far, head.moved_quickly, head.outcome_weight]
    {
        varint(number.into(), out);
    }
    head.failing.iter().for_each(|number| varint(u64::from(*number), out));
    varint(head.hour_index.into(), out);
    out.extend_from_slice(&head.hour_surprise.to_bits().to_le_bytes());
    varint(head.hours_new.into(), out);
    head.hour_weights.iter().for_each(|number| varint(u64::from(*number), out));
    head.hour_counts.iter().for_each(|number| varint(u64::from(*number), out));
    out.extend_from_slice(&head.odd.to_le_bytes());
    head.streaks.iter().for_each(|number| varint(u64::from(*number), out));
    varint(head.scored.into(), out);
    head.surprises.iter().for_each(|number| varint(u64::from(*number), out));
}

pub(super) fn read_user(
    input: &mut Input<'_>,
    profile: &mut Profile<'_>,
) -> Result<(), BaselineError> {
    let head = &mut *profile.head;
    (head.slot, head.position) = (input.small()?, input.small()?);
    head.key = u64::from_le_bytes(input.bytes()?);
    head.latest = unzigzag(input.varint()?);
    head.cut = input.byte()? != 0;
    head.chances = input.byte()?;
    head.recent = u16::from_le_bytes(input.bytes()?);
    head.recent_len = input.byte()?;
    for number in [&mut head.era, &mut head.events, &mut head.outcomes, &mut head.failures] {
        *number = input.number()?;
    }
    let lists = [
        (&mut head.address, &mut *profile.addresses, &mut head.address_len, &mut *profile.places),
        (&mut head.location, &mut *profile.locations, &mut head.location_len, &mut []),
        (&mut head.event_type, &mut *profile.types, &mut head.type_len, &mut []),
    ];
    for (dimension, values, len, places) in lists {
        let Dimension { count, weight, stay, lost, last } = dimension;
        for number in [count, weight, stay, lost] {
            *number = input.number()?;
        }
        *last = u32::from_le_bytes(input.bytes()?);
        *len = input.byte()?;
        if usize::from(*len) > values.len() {
            return Err(BaselineError::Damaged("a list is too long"));
        }
        for (at, value) in values.iter_mut().take(usize::from(*len)).enumerate() {
            let hash = u32::from_le_bytes(input.bytes()?);
            *value = Value::from_parts(hash, input.number()?, input.number()?);
            if let Some(place) = places.get_mut(at) {
                *place = u32::from_le_bytes(input.bytes()?);
            }
        }
    }
    for number in [
        &mut head.location_seconds,
        &mut head.moved,
        &mut head.moved_far,
        &mut head.moved_quickly,
        &mut head.outcome_weight,
    ] {
        *number = input.number()?;
    }
    for number in &mut head.failing {
        *number = input.number()?;
    }
    head.hour_index = input.number()?;
    head.hour_surprise = f32::from_bits(u32::from_le_bytes(input.bytes()?));
    head.hours_new = input.small()?;
    for number in &mut head.hour_weights {
        *number = input.small()?;
    }
    for number in &mut head.hour_counts {
        *number = input.number()?;
    }
    head.odd = u16::from_le_bytes(input.bytes()?);
    for number in &mut head.streaks {
        *number = input.number()?;
    }
    head.scored = input.number()?;
    for number in &mut head.surprises {
        *number = input.number()?;
    }
    if head.key == 0 {
        return Err(BaselineError::Damaged("a user has no key"));
    }
    Ok(())
}

pub(super) fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// What is left to read.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl Input<'_> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], BaselineError> {
        let (bytes, rest) =
            self.0.split_first_chunk().ok_or(BaselineError::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, BaselineError> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(super) fn varint(&mut self) -> Result<u64, BaselineError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(BaselineError::Damaged("a number is too long"))
    }

    fn number(&mut self) -> Result<u32, BaselineError> {
        u32::try_from(self.varint()?).map_err(|_| BaselineError::Damaged("a number is too great"))
    }

    pub(super) fn small(&mut self) -> Result<u16, BaselineError> {
        u16::try_from(self.varint()?).map_err(|_| BaselineError::Damaged("a number is too great"))
    }
}
