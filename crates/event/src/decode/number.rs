//! JSON numbers: what a column of integers or doubles can give back exactly, and what it cannot.

/// A number of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    /// A double whose shortest decimal form means the number that was sent.
    Float(f64),
    /// A number that neither holds exactly; its text is kept.
    Text,
}

/// The powers of ten that are exact in a double.
pub(super) const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

impl Number {
    /// The number that a text of JSON's grammar means.
    #[cold]
    pub(super) fn of_text(text: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(text) else {
            return Self::Text;
        };
        let whole = !text.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'));
        if whole && text != "-0" {
            return text.parse().map_or(Self::Text, Self::Int);
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() && means(text, value) => Self::Float(value),
            _ => Self::Text,
        }
    }
}

/// Whether the shortest form of a double is the same decimal number as a text.
fn means(text: &str, value: f64) -> bool {
    let mut buffer = ryu::Buffer::new();
    let (sent, kept) = (Decimal::of(text), Decimal::of(buffer.format_finite(value)));
    sent.is_some() && sent == kept
}

/// A decimal number in normal form: its significant digits and the power of ten of the last.
#[derive(PartialEq)]
struct Decimal {
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// `None` when it has more digits than any double's shortest form.
    fn of(text: &str) -> Option<Self> {
        let text = text.strip_prefix('-').unwrap_or(text);
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let mut exponent = exponent.checked_sub(fraction.len() as i64)?;
        let mut digits: Vec<u8> =
            whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0').collect();
        while digits.pop_if(|digit| *digit == b'0').is_some() {
            exponent = exponent.checked_add(1)?;
        }
        if digits.is_empty() {
            exponent = 0;
        }
        (digits.len() <= 17).then_some(Self { digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_double_cannot_give_back_stays_text() {
        for text in [
            "1e400",
            "9223372036854775808",
            "-9223372036854775809",
            "0.12345678901234567890",
            "1e-400",
            "123456789012345678901234567890",
        ] {
            assert_eq!(Number::of_text(text.as_bytes()), Number::Text, "{text}");
        }
        for (text, value) in [
            ("1e2", 100.0),
            ("-0", -0.0),
            ("1.50", 1.5),
            ("1E+22", 1e22),
            ("0.1", 0.1),
            ("5e-324", 5e-324),
            ("0e999999", 0.0),
        ] {
            let Number::Float(read) = Number::of_text(text.as_bytes()) else { panic!("{text}") };
            assert_eq!(read.to_bits(), f64::to_bits(value), "{text}");
        }
        assert_eq!(Number::of_text(b"-9223372036854775808"), Number::Int(i64::MIN));
    }

    proptest! {
        #[test]
        fn the_shortest_form_of_a_double_is_that_double(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut buffer = ryu::Buffer::new();
            prop_assert_eq!(Number::of_text(buffer.format_finite(value).as_bytes()), Number::Float(value));
        }
    }
}
