//! Arrays made of values that were picked one at a time.

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int32Builder, Int64Builder, StringViewBuilder, TimestampMicrosecondBuilder,
    UInt64Builder,
};
use arrow::datatypes::{DataType, TimeUnit};
use std::sync::Arc;

/// A column in the making. It holds the bytes of its values and no others.
pub(super) enum Column {
    Bool(BooleanBuilder),
    I32(Int32Builder),
    I64(Int64Builder),
    U64(UInt64Builder),
    F32(Float32Builder),
    F64(Float64Builder),
    Time(TimestampMicrosecondBuilder),
    Text(StringViewBuilder),
    Binary(BinaryBuilder),
    Fixed(FixedSizeBinaryBuilder),
}

impl Column {
    /// A column of this type; `None` for one that cannot be made here.
    pub(super) fn of(kind: &DataType) -> Option<Self> {
        Some(match kind {
            DataType::Boolean => Self::Bool(BooleanBuilder::new()),
            DataType::Int32 => Self::I32(Int32Builder::new()),
            DataType::Int64 => Self::I64(Int64Builder::new()),
            DataType::UInt64 => Self::U64(UInt64Builder::new()),
            DataType::Float32 => Self::F32(Float32Builder::new()),
            DataType::Float64 => Self::F64(Float64Builder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Time(TimestampMicrosecondBuilder::new().with_data_type(kind.clone()))
            }
            DataType::Utf8View => Self::Text(StringViewBuilder::new()),
            DataType::Binary => Self::Binary(BinaryBuilder::new()),
            DataType::FixedSizeBinary(width) => Self::Fixed(FixedSizeBinaryBuilder::new(*width)),
            _ => return None,
        })
    }

    /// Appends a value, given by its bytes as they are stored, or a null. `None` for bytes that are none of this type.
    pub(super) fn push(&mut self, value: Option<&[u8]>) -> Option<()> {
        macro_rules! number {
            ($builder:expr, $number:ty) => {
                $builder.append_option(match value {
                    Some(bytes) => Some(<$number>::from_le_bytes(bytes.try_into().ok()?)),
                    None => None,
                })
            };
        }
        match self {
            Self::Bool(builder) => builder.append_option(match value {
                Some([byte]) => Some(*byte == 1),
                Some(_) => return None,
                None => None,
            }),
            Self::I32(builder) => number!(builder, i32),
            Self::I64(builder) => number!(builder, i64),
            Self::U64(builder) => number!(builder, u64),
            Self::F32(builder) => number!(builder, f32),
            Self::F64(builder) => number!(builder, f64),
            Self::Time(builder) => number!(builder, i64),
            Self::Text(builder) => builder.append_option(match value {
                Some(bytes) => Some(std::str::from_utf8(bytes).ok()?),
                None => None,
            }),
            Self::Binary(builder) => builder.append_option(value),
            Self::Fixed(builder) => match value {
                Some(bytes) => builder.append_value(bytes).ok()?,
                None => builder.append_null(),
            },
        }
        Some(())
    }

    /// The array.
    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::I32(mut builder) => Arc::new(builder.finish()),
            Self::I64(mut builder) => Arc::new(builder.finish()),
            Self::U64(mut builder) => Arc::new(builder.finish()),
            Self::F32(mut builder) => Arc::new(builder.finish()),
            Self::F64(mut builder) => Arc::new(builder.finish()),
            Self::Time(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Binary(mut builder) => Arc::new(builder.finish()),
            Self::Fixed(mut builder) => Arc::new(builder.finish()),
        }
    }
}
