//! SQL functions that security questions need and DataFusion lacks.

use datafusion::arrow::array::{Array, AsArray, BooleanBuilder, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::net::IpAddr;
use std::sync::Arc;

/// `cidr_contains(address, network)`: whether an address lies in a network such as `10.0.0.0/8`; null
/// when the address is no address. An IPv4 address that is written as IPv6 counts as IPv4. A network
/// without a length is one address. A network that is none is an error.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CidrContains {
    signature: Signature,
}

/// A network: the address's bits, and how many of them count, all as IPv6.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Network {
    bits: u128,
    mask: u128,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.trim().split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (width, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let length = length.unwrap_or(width);
        if length > width {
            return None;
        }
        let mask = u128::MAX.checked_shl(128 - before - length).unwrap_or(0);
        Some(Self { bits: bits(address) & mask, mask })
    }

    fn contains(self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.bits
    }
}

impl ScalarUDFImpl for CidrContains {
    fn name(&self) -> &'static str {
        "cidr_contains"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let [address, network] = args.args.as_slice() else {
            return exec_err!("cidr_contains takes an address and a network");
        };
        let constant = match network {
            ColumnarValue::Scalar(value) => match value.try_as_str().flatten() {
                Some(text) => Some(parse(text)?),
                None => return Ok(ColumnarValue::Scalar(None::<bool>.into())),
            },
            ColumnarValue::Array(_) => None,
        };
        let addresses = texts(address, rows)?;
        let networks = if constant.is_some() { None } else { Some(texts(network, rows)?) };
        let mut out = BooleanBuilder::with_capacity(rows);
        for row in 0..rows {
            let network = match (&constant, &networks) {
                (Some(network), _) => Some(*network),
                (None, Some(networks)) if networks.is_valid(row) => {
                    Some(parse(networks.value(row))?)
                }
                _ => None,
            };
            let address = addresses.is_valid(row).then(|| addresses.value(row).trim().parse());
            out.append_option(match (address, network) {
                (Some(Ok(address)), Some(network)) => Some(network.contains(address)),
                _ => None,
            });
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

fn parse(text: &str) -> Result<Network> {
    match Network::parse(text) {
        Some(network) => Ok(network),
        None => exec_err!("'{text}' is no network: write it as 10.0.0.0/8 or 2001:db8::/32"),
    }
}

fn texts(value: &ColumnarValue, rows: usize) -> Result<StringViewArray> {
    let array = cast(&value.clone().into_array(rows)?, &DataType::Utf8View)?;
    Ok(array.as_string_view().clone())
}

/// The functions that are added to the session.
pub(crate) fn all() -> Vec<Arc<ScalarUDF>> {
    let signature = Signature::string(2, Volatility::Immutable);
    vec![
        Arc::new(ScalarUDF::from(CidrContains { signature })),
        palisade_table::provider::overflow_get(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.1.2.3"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::"));
        assert!(holds("192.0.2.7", "192.0.2.7"));
        assert!(!holds("192.0.2.7", "192.0.2.8"));
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "x/1", "10.0.0.0/-1"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
