//! Amounts in an asset's base units: 256 bits, checked, no floats.

use core::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use ruint::aliases::U256;

/// An amount in base units (wei, 10⁻⁶ USDC, …), 0 to 2²⁵⁶ − 1.
///
/// CBOR: a byte string of 0 to 32 bytes, big endian, no leading zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(U256);

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not a plain decimal number.
    #[error(
        "`{input}` is not a decimal amount: digits and at most one point, no sign, no exponent"
    )]
    NotDecimal {
        /// The beginning of the text.
        input: String,
    },
    /// More digits behind the point than the asset has.
    #[error(
        "`{input}` has more than {decimals} digits behind the point, the smallest unit of its asset"
    )]
    TooPrecise {
        /// The beginning of the text.
        input: String,
        /// How many the asset has.
        decimals: u8,
    },
    /// Does not fit 256 bits.
    #[error("`{input}` does not fit 256 bits")]
    TooLarge {
        /// The beginning of the text.
        input: String,
    },
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(U256::ZERO);
    /// 2²⁵⁶ − 1.
    pub const MAX: Self = Self(U256::MAX);

    /// From a 256-bit number of base units.
    #[must_use]
    pub const fn from_u256(value: U256) -> Self {
        Self(value)
    }
    /// From a number of base units.
    #[must_use]
    pub fn from_u128(value: u128) -> Self {
        Self(U256::from(value))
    }
    /// The number of base units.
    #[must_use]
    pub const fn to_u256(self) -> U256 {
        self.0
    }
    /// The number of base units, where it fits.
    #[must_use]
    pub fn to_u128(self) -> Option<u128> {
        u128::try_from(self.0).ok()
    }
    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
    /// The sum, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }
    /// The difference, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
    /// The product, or `None` on overflow.
    #[must_use]
    pub fn checked_mul(self, factor: u64) -> Option<Self> {
        self.0.checked_mul(U256::from(factor)).map(Self)
    }
    /// The product of two, or `None` on overflow.
    #[must_use]
    pub fn checked_mul_amount(self, factor: Self) -> Option<Self> {
        self.0.checked_mul(factor.0).map(Self)
    }
    /// The sum, at most [`Self::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
    /// The difference, at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
    /// The product, at most [`Self::MAX`].
    #[must_use]
    pub fn saturating_mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(U256::from(factor)))
    }
    /// The whole quotient, or `None` for a divisor of zero.
    #[must_use]
    pub fn checked_div(self, divisor: Self) -> Option<Self> {
        self.0.checked_div(divisor.0).map(Self)
    }

    /// Parses whole base units: decimal digits without a leading zero.
    ///
    /// # Errors
    /// If the text has another form or does not fit.
    pub fn from_base_units(text: &str) -> Result<Self, AmountError> {
        Self::from_decimal(text, 0)
    }

    /// Parses a decimal number of whole units of an asset with `decimals` digits: `"2.5"` with 6
    /// decimals is 2,500,000 base units.
    ///
    /// # Errors
    /// If the text has another form, is finer than a base unit, or does not fit.
    pub fn from_decimal(text: &str, decimals: u8) -> Result<Self, AmountError> {
        let clip = || text.chars().take(100).collect::<String>();
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return Err(AmountError::NotDecimal { input: clip() }),
            None => (text, ""),
        };
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if whole.is_empty() || leading_zero || !digits(whole) || !digits(fraction) {
            return Err(AmountError::NotDecimal { input: clip() });
        }
        let decimals_len = usize::from(decimals);
        if fraction.len() > decimals_len {
            return Err(AmountError::TooPrecise { input: clip(), decimals });
        }
        let zeros = decimals_len.saturating_sub(fraction.len());
        let joined = [whole, fraction, &"0".repeat(zeros)].concat();
        // 2^256 has 78 digits; anything longer than that and the zeros of a u8 is refused early
        if joined.len() > 400 {
            return Err(AmountError::TooLarge { input: clip() });
        }
        U256::from_str_radix(&joined, 10)
            .map(Self)
            .map_err(|_| AmountError::TooLarge { input: clip() })
    }

    /// Decimal text in whole units, with no trailing zeros: 2,500,000 with 6 decimals is `2.5`.
    #[must_use]
    pub fn to_decimal(self, decimals: u8) -> String {
        let digits = self.0.to_string();
        let width = usize::from(decimals).saturating_add(1);
        let padded = format!("{digits:0>width$}");
        let point = padded.len().saturating_sub(usize::from(decimals));
        let (whole, fraction) = padded.split_at(point);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amount({})", self.0)
    }
}
impl From<u64> for Amount {
    fn from(value: u64) -> Self {
        Self(U256::from(value))
    }
}
impl<C> Encode<C> for Amount {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0.to_be_bytes_trimmed_vec())?.ok()
    }
}
impl<'b, C> Decode<'b, C> for Amount {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let bytes = d.bytes()?;
        if bytes.len() > 32 || bytes.first() == Some(&0) {
            return Err(decode::Error::message("not a canonical amount").at(at));
        }
        U256::try_from_be_slice(bytes)
            .map(Self)
            .ok_or_else(|| decode::Error::message("not an amount").at(at))
    }
}
/// JSON: a decimal string in base units.
impl serde::Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}
impl<'de> serde::Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::from_base_units(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_trip() {
        for (text, decimals, units) in
            [("2.5", 6, "2500000"), ("0", 6, "0"), ("0.000001", 6, "1"), ("15000", 0, "15000")]
        {
            let amount = Amount::from_decimal(text, decimals).unwrap();
            assert_eq!(amount.to_string(), units);
            assert_eq!(amount.to_decimal(decimals), text);
        }
    }

    #[test]
    fn what_is_not_plain_decimal_is_refused() {
        for bad in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "01", "1_000", "1,5", " 1", "0x10", "１"]
        {
            assert!(
                matches!(Amount::from_decimal(bad, 18), Err(AmountError::NotDecimal { .. })),
                "{bad}"
            );
        }
        assert!(matches!(
            Amount::from_decimal("1.1234567", 6),
            Err(AmountError::TooPrecise { .. })
        ));
        let max = Amount::MAX.to_string();
        assert_eq!(Amount::from_base_units(&max), Ok(Amount::MAX));
        assert!(matches!(Amount::from_decimal(&max, 1), Err(AmountError::TooLarge { .. })));
    }

    proptest::proptest! {
        #[test]
        fn amounts_survive_text_and_cbor(high: u128, low: u128, decimals in 0_u8..=40) {
            let amount = Amount::from_u256((U256::from(high) << 128_usize) | U256::from(low));
            proptest::prop_assert_eq!(Amount::from_decimal(&amount.to_decimal(decimals), decimals), Ok(amount));
            let bytes = crate::cbor::encode(&amount);
            proptest::prop_assert_eq!(crate::cbor::decode::<Amount>(&bytes, 64).unwrap(), amount);
        }
    }
}
