//! Between serde_json's values and jaq's, by hand: integers and the order of fields are kept exactly.

use crate::{
    item::Value,
    limits::{DEPTH_MAX, JQ_VALUE_DEPTH_MAX, JQ_WEIGHT_MAX},
};
use jaq_json::{Map, Num, Val};
use serde_json::Number;

/// Largest whole number that a double holds without gaps, 2^53.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// A value as jq sees it.
///
/// Integers stay integers of any size. A float that is whole (`15.0`) is kept as it is written while a filter only moves
/// it, and is a number like any other as soon as the filter computes with it.
///
/// # Errors
/// A sentence when the value is nested deeper than [`DEPTH_MAX`].
pub fn to_jq(value: &Value) -> Result<Val, String> {
    enter(value, DEPTH_MAX)
}

/// What a filter gave, as JSON. Not-a-number and the infinities become null; a computed float that is whole and below
/// 2^53 becomes an integer (`30 / 2` is `15`), as jq prints it; an integer beyond 64 bits becomes a float.
///
/// # Errors
/// A sentence when it is nested deeper than [`DEPTH_MAX`], larger than [`JQ_WEIGHT_MAX`], or has a field whose name is no
/// text.
pub fn from_jq(value: &Val) -> Result<Value, String> {
    check_extent(value)?;
    leave(value, DEPTH_MAX)
}

/// Why a value could not be written, or hardly: it is nested deeper than [`JQ_VALUE_DEPTH_MAX`], or larger than
/// [`JQ_WEIGHT_MAX`]. It is looked at no further than that.
///
/// # Errors
/// A sentence.
pub fn check_extent(value: &Val) -> Result<(), String> {
    /// Weight of a value beside its texts.
    const EACH: usize = 16;
    fn rest(value: &Val, left: usize, depth: usize) -> Result<usize, String> {
        let too_large = || "a value is too large".to_owned();
        let left = left.checked_sub(EACH).ok_or_else(too_large)?;
        match value {
            Val::TStr(bytes) | Val::BStr(bytes) => left.checked_sub(bytes.len()).ok_or_else(too_large),
            Val::Arr(_) | Val::Obj(_) if depth == 0 => {
                Err(format!("a value is nested deeper than {JQ_VALUE_DEPTH_MAX} levels"))
            }
            Val::Arr(list) => list.iter().try_fold(left, |left, value| rest(value, left, depth - 1)),
            Val::Obj(fields) => {
                fields.iter().try_fold(left, |left, (name, value)| rest(value, rest(name, left, depth - 1)?, depth - 1))
            }
            Val::Null | Val::Bool(_) | Val::Num(_) => Ok(left),
        }
    }
    rest(value, JQ_WEIGHT_MAX, JQ_VALUE_DEPTH_MAX).map(drop)
}

/// The value's JSON, cut after `max` bytes.
pub fn clip(value: &Val, max: usize) -> String {
    let text = match from_jq(value) {
        Ok(value) => value.to_string(),
        Err(_) => return "a deeply nested or very large value".to_owned(),
    };
    super::cut(&text, max).into_owned()
}

/// A text.
pub fn text(text: impl Into<String>) -> Val {
    Val::utf8_str(text.into())
}

fn enter(value: &Value, depth: usize) -> Result<Val, String> {
    Ok(match value {
        Value::Null => Val::Null,
        Value::Bool(yes) => Val::Bool(*yes),
        Value::Number(number) => Val::Num(enter_number(number)),
        Value::String(string) => text(string.as_str()),
        Value::Array(_) | Value::Object(_) if depth == 0 => return Err(too_deep()),
        Value::Array(list) => Val::Arr(list.iter().map(|x| enter(x, depth - 1)).collect::<Result<Vec<_>, _>>()?.into()),
        Value::Object(fields) => {
            let mut map = Map::with_capacity_and_hasher(fields.len(), Default::default());
            for (name, x) in fields {
                map.insert(text(name.as_str()), enter(x, depth - 1)?);
            }
            Val::obj(map)
        }
    })
}

fn enter_number(number: &Number) -> Num {
    if let Some(n) = number.as_i64() {
        return Num::from_integral(n);
    }
    if let Some(n) = number.as_u64() {
        return Num::from_integral(n);
    }
    let n = number.as_f64().unwrap_or(f64::NAN);
    if n == n.trunc() { Num::Dec(number.to_string().into()) } else { Num::Float(n) }
}

fn leave(value: &Val, depth: usize) -> Result<Value, String> {
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(yes) => Value::Bool(*yes),
        Val::Num(number) => leave_number(number),
        Val::TStr(bytes) | Val::BStr(bytes) => Value::String(String::from_utf8_lossy(bytes).into_owned()),
        Val::Arr(_) | Val::Obj(_) if depth == 0 => return Err(too_deep()),
        Val::Arr(list) => Value::Array(list.iter().map(|x| leave(x, depth - 1)).collect::<Result<_, _>>()?),
        Val::Obj(fields) => {
            let mut map = serde_json::Map::with_capacity(fields.len());
            for (name, x) in fields.iter() {
                let Val::TStr(name) = name else {
                    return Err(format!("the name of a field must be a text, not {}", clip(name, 40)));
                };
                map.insert(String::from_utf8_lossy(name).into_owned(), leave(x, depth - 1)?);
            }
            Value::Object(map)
        }
    })
}

fn leave_number(number: &Num) -> Value {
    let float = |n: f64| Number::from_f64(n).map_or(Value::Null, Value::Number);
    match number {
        Num::Int(n) => Value::from(*n),
        Num::Float(n) if *n == n.trunc() && n.abs() < WHOLE_MAX && !(*n == 0.0 && n.is_sign_negative()) => {
            Value::from(*n as i64)
        }
        Num::Float(n) => float(*n),
        Num::Dec(digits) => float(digits.parse().unwrap_or(f64::NAN)),
        Num::BigInt(n) => {
            let digits = n.to_string();
            match (digits.parse::<i64>(), digits.parse::<u64>()) {
                (Ok(n), _) => Value::from(n),
                (_, Ok(n)) => Value::from(n),
                _ => float(digits.parse().unwrap_or(f64::NAN)),
            }
        }
    }
}

fn too_deep() -> String {
    format!("a value is nested deeper than {DEPTH_MAX} levels")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_goes_in_comes_out() {
        for value in [
            json!(null),
            json!([true, false]),
            json!(0),
            json!(-1),
            json!(i64::MAX),
            json!(i64::MIN),
            json!(u64::MAX),
            json!(9_007_199_254_740_993_i64),
            json!(15.0),
            json!(-0.0),
            json!(0.1),
            json!(1e300),
            json!(5e-324),
            json!(f64::MAX),
            json!("a\u{0}ü\"\\"),
            json!({"z": 1, "a": [{"c": 1, "b": {}}], "": []}),
        ] {
            let there = to_jq(&value).expect("not deep");
            assert_eq!(from_jq(&there).expect("not deep").to_string(), value.to_string());
        }
    }

    #[test]
    fn computed_numbers_read_as_jq_prints_them() {
        assert_eq!(from_jq(&Val::Num(Num::Float(15.0))), Ok(json!(15)));
        assert_eq!(from_jq(&Val::Num(Num::Float(1e15))), Ok(json!(1_000_000_000_000_000_i64)));
        assert_eq!(from_jq(&Val::Num(Num::Float(1e16))), Ok(json!(1e16)));
        assert_eq!(from_jq(&Val::Num(Num::Float(f64::NAN))), Ok(Value::Null));
        assert_eq!(from_jq(&Val::Num(Num::Float(f64::INFINITY))), Ok(Value::Null));
    }

    #[test]
    fn a_value_too_deep_is_an_error_and_not_a_crash() {
        let nest = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(to_jq(&nest(DEPTH_MAX)).is_ok());
        assert_eq!(to_jq(&nest(DEPTH_MAX + 1)).map(|_| ()), Err("a value is nested deeper than 128 levels".into()));
        let deep = (0..1000).fold(Val::Null, |inner, _| Val::Arr(vec![inner].into()));
        assert!(from_jq(&deep).is_err());
        assert_eq!(check_extent(&deep), Ok(()));
        assert!(check_extent(&Val::Arr(vec![deep].into())).is_err());
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(clip(&text("ab"), 10), "\"ab\"");
        assert_eq!(clip(&text("üüüü"), 4), "\"ü…");
    }
}
