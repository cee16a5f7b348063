//! `LIKE` with `_`, escapes or several texts, without a regular expression.
//!
//! Arrow's kernel compiles such a pattern to a regular expression, which takes some 100 ns a value. Here a
//! pattern is what stands between its `%`: lists of texts and single characters, each of which is looked for
//! from the left behind the one before it, the last one at the value's end. The meaning is the kernel's:
//! `\` before a character means the character itself, a last `\` is a `\`.

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use memchr::memmem::Finder;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Longer patterns are left to the kernel.
const MAX_PATTERN: usize = 1_000;

/// What a part of a pattern is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Text(String),
    /// Any one character.
    One,
}

/// What stands between two `%`.
#[derive(Debug, Clone, Default)]
struct Part {
    steps: Vec<Step>,
    /// For its first text, when the part begins with it.
    finder: Option<Finder<'static>>,
    chars: usize,
}

impl Part {
    fn new(steps: Vec<Step>) -> Self {
        let chars = steps.iter().map(|step| match step {
            Step::Text(text) => text.chars().count(),
            Step::One => 1,
        });
        let finder = match steps.first() {
            Some(Step::Text(text)) => Some(Finder::new(text.as_bytes()).into_owned()),
            _ => None,
        };
        Self { chars: chars.sum(), finder, steps }
    }

    /// What is left of a text that begins with this part.
    fn strip<'a>(&self, mut text: &'a str) -> Option<&'a str> {
        for step in &self.steps {
            text = match step {
                Step::Text(wanted) => text.strip_prefix(wanted.as_str())?,
                Step::One => {
                    let mut chars = text.chars();
                    chars.next()?;
                    chars.as_str()
                }
            };
        }
        Some(text)
    }

    /// What is left behind the first place where this part stands.
    fn find<'a>(&self, mut text: &'a str) -> Option<&'a str> {
        loop {
            if let Some(finder) = &self.finder {
                text = text.get(finder.find(text.as_bytes())?..)?;
            }
            if let Some(rest) = self.strip(text) {
                return Some(rest);
            }
            let mut chars = text.chars();
            chars.next()?;
            text = chars.as_str();
        }
    }

    /// Whether a text ends with this part.
    fn ends(&self, text: &str) -> bool {
        let Some(before) = self.chars.checked_sub(1) else { return true };
        let start = text.char_indices().rev().nth(before).and_then(|(at, _)| text.get(at..));
        start.is_some_and(|end| self.strip(end).is_some_and(str::is_empty))
    }
}

/// A pattern, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    first: Part,
    middle: Vec<Part>,
    /// `None` for a pattern without `%`.
    last: Option<Part>,
}

/// The steps between the `%` of a pattern.
fn parts(pattern: &str) -> Vec<Vec<Step>> {
    let mut parts = vec![Vec::new()];
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        let literal = match char {
            '%' => {
                parts.push(Vec::new());
                continue;
            }
            '_' => None,
            '\\' => Some(chars.next().unwrap_or('\\')),
            other => Some(other),
        };
        let Some(part) = parts.last_mut() else { continue };
        match (literal, part.last_mut()) {
            (Some(char), Some(Step::Text(text))) => text.push(char),
            (Some(char), _) => part.push(Step::Text(char.into())),
            (None, _) => part.push(Step::One),
        }
    }
    parts
}

/// The longest text that every value holds which a pattern matches; `None` when there is none.
pub(super) fn longest_text(pattern: &str) -> Option<String> {
    let texts = parts(pattern).into_iter().flatten().filter_map(|step| match step {
        Step::Text(text) => Some(text),
        Step::One => None,
    });
    texts.max_by_key(String::len)
}

impl Pattern {
    fn new(pattern: &str) -> Self {
        let mut parts = parts(pattern).into_iter().map(Part::new);
        let first = parts.next().unwrap_or_default();
        let mut middle: Vec<Part> = parts.collect();
        let last = middle.pop();
        middle.retain(|part| !part.steps.is_empty());
        Self { first, middle, last }
    }

    fn matches(&self, text: &str) -> bool {
        let Some(mut rest) = self.first.strip(text) else { return false };
        let Some(last) = &self.last else { return rest.is_empty() };
        for part in &self.middle {
            match part.find(rest) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        last.ends(rest)
    }
}

/// A column's texts compared with a pattern. The argument is the column.
#[derive(Debug)]
pub(super) struct LikeText {
    text: Arc<str>,
    pattern: Pattern,
    negated: bool,
    signature: Signature,
}

impl LikeText {
    /// `None` for a pattern with which the kernel does well.
    pub(super) fn new(pattern: &str, negated: bool) -> Option<Self> {
        let inner = pattern.strip_prefix('%').unwrap_or(pattern);
        let inner = inner.strip_suffix('%').unwrap_or(inner);
        let special = inner.contains(['%', '_', '\\']);
        (special && pattern.len() <= MAX_PATTERN).then(|| Self {
            text: Arc::from(pattern),
            pattern: Pattern::new(pattern),
            negated,
            signature: Signature::any(1, Volatility::Immutable),
        })
    }
}

impl PartialEq for LikeText {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.negated == other.negated
    }
}

impl Eq for LikeText {}

impl Hash for LikeText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.text, self.negated).hash(state);
    }
}

impl ScalarUDFImpl for LikeText {
    fn name(&self) -> &'static str {
        if self.negated { "not_like" } else { "like" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [column] = args.args.as_slice() else {
            return exec_err!("like takes one argument");
        };
        let column = column.clone().into_array(args.number_rows)?;
        let column = cast(&column, &DataType::Utf8View)?;
        let Some(texts) = column.as_string_view_opt() else {
            return exec_err!("like takes a text");
        };
        let matched =
            BooleanArray::from_unary(texts, |text| self.pattern.matches(text) != self.negated);
        Ok(ColumnarValue::Array(Arc::new(matched)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Scalar, StringViewArray};
    use proptest::prelude::*;

    fn texts() -> impl Strategy<Value = String> {
        const CHARS: &[char] = &['a', 'b', '%', '_', '\\', '.', '*', '\n', 'ä', '😀'];
        prop::collection::vec(prop::sample::select(CHARS), 0..9).prop_map(String::from_iter)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn patterns_mean_what_the_kernel_means(
            pattern in texts(),
            values in prop::collection::vec(prop::option::of(texts()), 1..20),
        ) {
            let array = StringViewArray::from_iter(values.iter());
            let scalar = Scalar::new(StringViewArray::from_iter_values([&pattern]));
            let kernel = arrow::compute::like(&array, &scalar).unwrap();
            let own = Pattern::new(&pattern);
            let longest = longest_text(&pattern);
            for (value, like) in values.iter().zip(&kernel) {
                let matched = value.as_deref().map(|value| own.matches(value));
                prop_assert_eq!(matched, like, "{:?} LIKE {:?}", value, pattern);
                if matched == Some(true)
                    && let (Some(value), Some(longest)) = (value, &longest)
                {
                    prop_assert!(value.contains(longest.as_str()));
                }
            }
        }
    }

    #[test]
    fn only_what_the_kernel_is_slow_with_is_taken() {
        for plain in ["a", "a%", "%a", "%a%", "%", ""] {
            assert_eq!(LikeText::new(plain, false), None, "{plain}");
        }
        for special in ["a_", "a%b", "%a%b%", "\\%a", "_"] {
            assert!(LikeText::new(special, false).is_some(), "{special}");
        }
        assert_eq!(longest_text("%a_bcde%f\\%g%").as_deref(), Some("bcde"));
        assert_eq!(longest_text("%__%"), None);
    }
}
