//! `percentile_cont` for columns whose values repeat.
//!
//! DataFusion's own keeps every value until the end: a hundred million scores take 400 MB and a
//! selection over all of them. Scores and entropies are rounded when they are stored, sizes and ports
//! repeat too, so here each distinct value of a group is kept once with its count ([`tally::Tally`]).
//! Where values hardly repeat, further ones are kept as they are, as DataFusion does. The answer is
//! DataFusion's to the last bit in either case; all memory is accounted to the query's pool.

mod tally;

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, ListArray, PrimitiveArray,
    UInt64Array,
};
use datafusion::arrow::buffer::{OffsetBuffer, ScalarBuffer};
use datafusion::arrow::datatypes::{
    DataType, Field, FieldRef, Float32Type, Float64Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, internal_err};
use datafusion::functions_aggregate::percentile_cont::PercentileCont;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator,
    Signature,
};
use datafusion::physical_expr::expressions::Literal;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;
use tally::{Group, Held, interpolate};

/// The aggregate, under the name and aliases of DataFusion's.
pub(crate) fn percentile_cont() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Percentile { general: PercentileCont::new() }))
}

/// Counts what repeats; what is not its affair it leaves to DataFusion's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    general: PercentileCont,
}

/// Whether values of this type are counted here.
fn is_counted(kind: &DataType, distinct: bool) -> bool {
    !distinct && matches!(kind, DataType::Float32 | DataType::Float64)
}

fn input<'a>(args: &'a AccumulatorArgs<'_>) -> Option<&'a DataType> {
    args.expr_fields.first().map(|field| field.data_type())
}

/// The wanted percentile as an ascending one; `None` leaves the question, and its errors, to
/// DataFusion's.
fn wanted(args: &AccumulatorArgs<'_>) -> Option<f64> {
    let literal = args.exprs.get(1)?.downcast_ref::<Literal>()?;
    let share = match literal.value() {
        ScalarValue::Float64(Some(share)) => *share,
        ScalarValue::Float32(Some(share)) => f64::from(*share),
        _ => return None,
    };
    let descending = args.order_bys.first().is_some_and(|order| order.options.descending);
    (0.0..=1.0).contains(&share).then_some(if descending { 1.0 - share } else { share })
}

fn counted(args: &AccumulatorArgs<'_>) -> Option<(DataType, f64)> {
    let kind = input(args).filter(|kind| is_counted(kind, args.is_distinct))?.clone();
    Some((kind, wanted(args)?))
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.general.name()
    }

    fn aliases(&self) -> &[String] {
        self.general.aliases()
    }

    fn signature(&self) -> &Signature {
        self.general.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        self.general.return_type(kinds)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let kind = args.input_fields.first().map(|field| field.data_type().clone());
        let Some(kind) = kind.filter(|kind| is_counted(kind, args.is_distinct)) else {
            return self.general.state_fields(args);
        };
        let list = |name: &str, kind: DataType| -> FieldRef {
            let item = Arc::new(Field::new_list_field(kind, true));
            Arc::new(Field::new(format_state_name(args.name, name), DataType::List(item), true))
        };
        Ok(vec![list("values", kind), list("counts", DataType::UInt64)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match counted(&args) {
            Some((DataType::Float32, share)) => Ok(Box::new(One::<Float32Type>::new(share))),
            Some((DataType::Float64, share)) => Ok(Box::new(One::<Float64Type>::new(share))),
            _ if input(&args).is_some_and(|kind| is_counted(kind, args.is_distinct)) => {
                exec_err!("percentile_cont takes a number from 0 to 1 as its percentile")
            }
            _ => self.general.accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        counted(&args).is_some() || self.general.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        match counted(&args) {
            Some((DataType::Float32, share)) => Ok(Box::new(Many::<Float32Type>::new(share))),
            Some((DataType::Float64, share)) => Ok(Box::new(Many::<Float64Type>::new(share))),
            _ if input(&args).is_some_and(|kind| is_counted(kind, args.is_distinct)) => {
                exec_err!("percentile_cont takes a number from 0 to 1 as its percentile")
            }
            _ => self.general.create_groups_accumulator(args),
        }
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.general.simplify()
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.general.documentation()
    }
}

/// A floating-point type whose values are kept as keys that sort as the values do.
trait Keyed: ArrowPrimitiveType + Debug + Send + Sync {
    /// The key of a value: ordered as [`f64::total_cmp`] orders.
    fn key(value: Self::Native) -> u64;
    /// The value of a key.
    fn value(key: u64) -> Self::Native;
    /// The value `weight` of the way from one value to another, computed in double precision.
    fn between(lower: Self::Native, upper: Self::Native, weight: f64) -> Self::Native;
}

impl Keyed for Float32Type {
    fn key(value: f32) -> u64 {
        let bits = value.to_bits();
        let flip = if bits >> 31 == 1 { u32::MAX } else { 1 << 31 };
        u64::from(bits ^ flip)
    }

    fn value(key: u64) -> f32 {
        let bits = key as u32;
        let flip = if bits >> 31 == 1 { 1 << 31 } else { u32::MAX };
        f32::from_bits(bits ^ flip)
    }

    fn between(lower: f32, upper: f32, weight: f64) -> f32 {
        let (lower, upper) = (f64::from(lower), f64::from(upper));
        (lower + (upper - lower) * weight) as f32
    }
}

impl Keyed for Float64Type {
    fn key(value: f64) -> u64 {
        let bits = value.to_bits();
        let flip = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
        bits ^ flip
    }

    fn value(key: u64) -> f64 {
        let flip = if key >> 63 == 1 { 1 << 63 } else { u64::MAX };
        f64::from_bits(key ^ flip)
    }

    fn between(lower: f64, upper: f64, weight: f64) -> f64 {
        lower + (upper - lower) * weight
    }
}

/// The percentile of one group out of its keys with their counts, and further keys.
fn percentile<T: Keyed>(
    entries: Vec<(u64, u64)>,
    plain: &mut [u64],
    share: f64,
) -> Option<T::Native> {
    let (lower, upper, weight) = interpolate(entries, plain, share)?;
    let (lower, upper) = (T::value(lower), T::value(upper));
    Some(if weight == 0.0 { lower } else { T::between(lower, upper, weight) })
}

fn values_of<T: Keyed>(arrays: &[ArrayRef]) -> Result<&PrimitiveArray<T>> {
    let first = arrays.first().and_then(|array| array.as_primitive_opt::<T>());
    first.ok_or_else(|| exec_datafusion_err!("percentile_cont got values of another type"))
}

/// The values and counts of the groups in a batch of states.
fn states_of(arrays: &[ArrayRef]) -> Result<(&ListArray, &ListArray)> {
    let list = |index: usize| arrays.get(index).and_then(|array| array.as_list_opt::<i32>());
    match (list(0), list(1)) {
        (Some(values), Some(counts)) => Ok((values, counts)),
        _ => internal_err!("the state of percentile_cont is no pair of lists"),
    }
}

/// Hands over the keys and counts of one group's state.
fn each_entry<T: Keyed>(
    values: &ListArray,
    counts: &ListArray,
    row: usize,
    mut take: impl FnMut(u64, u64),
) -> Result<()> {
    if values.is_null(row) || counts.is_null(row) {
        return Ok(());
    }
    let (values, counts) = (values.value(row), counts.value(row));
    let (Some(values), Some(counts)) =
        (values.as_primitive_opt::<T>(), counts.as_primitive_opt::<UInt64Type>())
    else {
        return internal_err!("the state of percentile_cont has other types");
    };
    for (value, count) in values.values().iter().zip(counts.values()) {
        take(T::key(*value), *count);
    }
    Ok(())
}

/// The states of groups as two lists of lists.
fn state_lists<T: Keyed>(groups: Vec<Group>) -> Result<Vec<ArrayRef>> {
    let lengths = groups.iter().map(|(entries, plain)| entries.len() + plain.len());
    let total: usize = lengths.clone().sum();
    if i32::try_from(total).is_err() {
        return exec_err!("percentile_cont keeps too many different values: narrow the query");
    }
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let mut values: Vec<T::Native> = Vec::with_capacity(total);
    let mut counts: Vec<u64> = Vec::with_capacity(total);
    for (entries, plain) in groups {
        values.extend(entries.iter().map(|(key, _)| T::value(*key)));
        counts.extend(entries.iter().map(|(_, count)| *count));
        values.extend(plain.iter().map(|key| T::value(*key)));
        counts.extend(plain.iter().map(|_| 1));
    }
    let list = |kind: DataType, offsets: OffsetBuffer<i32>, array: ArrayRef| -> ArrayRef {
        let item = Arc::new(Field::new_list_field(kind, true));
        Arc::new(ListArray::new(item, offsets, array, None))
    };
    let values = PrimitiveArray::<T>::new(ScalarBuffer::from(values), None);
    Ok(vec![
        list(T::DATA_TYPE, offsets.clone(), Arc::new(values)),
        list(DataType::UInt64, offsets, Arc::new(UInt64Array::from(counts))),
    ])
}

/// The percentile of all rows, or of a window.
#[derive(Debug)]
struct One<T: Keyed> {
    held: Held,
    share: f64,
    kind: PhantomData<T>,
}

impl<T: Keyed> One<T> {
    fn new(share: f64) -> Self {
        Self { held: Held::default(), share, kind: PhantomData }
    }
}

impl<T: Keyed> Accumulator for One<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values_of::<T>(values)?;
        if values.null_count() > 0 {
            values.iter().flatten().for_each(|value| self.held.add(0, T::key(value)));
        } else {
            values.values().iter().for_each(|value| self.held.add(0, T::key(*value)));
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = states_of(states)?;
        for row in 0..values.len() {
            each_entry::<T>(values, counts, row, |key, count| self.held.merge(0, key, count))?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let groups = std::mem::take(&mut self.held).take_groups(1);
        let lists = state_lists::<T>(groups)?;
        lists.iter().map(|list| ScalarValue::try_from_array(list, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let (entries, plain) = self.held.only_group();
        let value = percentile::<T>(entries, plain, self.share);
        ScalarValue::new_primitive::<T>(value, &T::DATA_TYPE)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.held.bytes()
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values_of::<T>(values)?.iter().flatten() {
            if !self.held.remove(T::key(value)) {
                return internal_err!("percentile_cont is to give back a value that it has not");
            }
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}

/// The percentiles of many groups.
#[derive(Debug)]
struct Many<T: Keyed> {
    held: Held,
    groups: usize,
    share: f64,
    kind: PhantomData<T>,
}

impl<T: Keyed> Many<T> {
    fn new(share: f64) -> Self {
        Self { held: Held::default(), groups: 0, share, kind: PhantomData }
    }

    /// The first groups, or all, in order; they are forgotten here.
    fn emit(&mut self, which: EmitTo) -> Vec<Group> {
        let count = match which {
            EmitTo::All => self.groups,
            EmitTo::First(count) => count.min(self.groups),
        };
        let emitted = self.held.take_groups(count);
        self.groups -= count;
        emitted
    }
}

impl<T: Keyed> GroupsAccumulator for Many<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.groups = total;
        let values = values_of::<T>(values)?;
        let passes = |row: usize| filter.is_none_or(|kept| kept.is_valid(row) && kept.value(row));
        if values.null_count() == 0 && filter.is_none() {
            for (value, group) in values.values().iter().zip(groups) {
                self.held.add(*group, T::key(*value));
            }
            return Ok(());
        }
        for (row, (value, group)) in values.iter().zip(groups).enumerate() {
            if let Some(value) = value.filter(|_| passes(row)) {
                self.held.add(*group, T::key(value));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.groups = total;
        let (values, counts) = states_of(states)?;
        for (row, group) in groups.iter().enumerate() {
            each_entry::<T>(values, counts, row, |key, count| {
                self.held.merge(*group, key, count);
            })?;
        }
        Ok(())
    }

    fn state(&mut self, which: EmitTo) -> Result<Vec<ArrayRef>> {
        state_lists::<T>(self.emit(which))
    }

    fn evaluate(&mut self, which: EmitTo) -> Result<ArrayRef> {
        let share = self.share;
        let groups = self.emit(which).into_iter();
        let values = groups.map(|(entries, mut plain)| percentile::<T>(entries, &mut plain, share));
        Ok(Arc::new(values.collect::<PrimitiveArray<T>>()))
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = values_of::<T>(values)?;
        let passes = |row: usize| filter.is_none_or(|kept| kept.is_valid(row) && kept.value(row));
        let groups = values.iter().enumerate().map(|(row, value)| {
            let key = value.filter(|_| passes(row)).map(T::key);
            (key.map(|key| (key, 1)).into_iter().collect(), Vec::new())
        });
        state_lists::<T>(groups.collect())
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.held.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_values_and_come_back() {
        let doubles = [
            f64::NEG_INFINITY,
            -1.5,
            -f64::MIN_POSITIVE,
            -0.0,
            0.0,
            f64::MIN_POSITIVE,
            0.1,
            1e300,
            f64::INFINITY,
            f64::NAN,
        ];
        assert!(doubles.map(Float64Type::key).is_sorted());
        for value in doubles {
            assert_eq!(Float64Type::value(Float64Type::key(value)).to_bits(), value.to_bits());
            let single = value as f32;
            assert_eq!(Float32Type::value(Float32Type::key(single)).to_bits(), single.to_bits());
        }
        assert!(doubles.map(|value| Float32Type::key(value as f32)).is_sorted());
    }
}
