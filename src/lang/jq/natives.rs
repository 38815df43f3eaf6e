//! What a filter can call: jq's own functions without the doors to the outside, and those that this program adds.

use super::{DataT, Facts, values};
use crate::{
    lang::stats,
    limits::{
        DEPTH_MAX, JQ_ELEMENTS_MAX, JQ_HANDED_ON_MAX, JQ_INDEX_MAX, JQ_NUMBER_BITS_MAX, JQ_STACK_BYTES_MAX,
        JQ_TEXT_BYTES_MAX, JQ_VALUE_DEPTH_MAX,
    },
};
use jaq_core::{
    Bind, Ctx, Error, Exn, Lut, Native, RunPtr, ValR, ValXs,
    box_iter::Results,
    data::HasLut,
    load::parse::Def,
    native::{Filter, Fun, bome, run, v},
};
use jaq_json::{Num, Val};
use jaq_std::ValT as _;
use std::{
    cell::Cell,
    fmt::Write as _,
    hint::black_box,
    sync::{Arc, OnceLock},
};

/// What natives see while a filter runs.
#[derive(Clone, Copy)]
pub struct RunData<'a> {
    /// The compiled program.
    pub lut: &'a Lut<Jq>,
    /// The item's facts.
    pub facts: &'a Facts,
    /// Address of a local variable of the caller: where the stack was when the filter began.
    pub base: usize,
    /// How often the guard was called.
    pub guarded: &'a Cell<u32>,
}

/// Binds jaq's types to ours.
pub struct Jq;

impl DataT for Jq {
    type V<'a> = Val;
    type Data<'a> = RunData<'a>;
}

impl<'a> HasLut<'a, Jq> for RunData<'a> {
    fn lut(&self) -> &'a Lut<Jq> {
        self.lut
    }
}

/// Name of the guard that [`super::syntax`] puts into everything that repeats; no author can write it.
pub const GUARD: &str = "!guard";

/// Name of the filter that [`super::syntax`] puts around the body of every loop; no author can write it.
pub const WHOLE: &str = "!whole";

/// Name of the filter that [`super::syntax`] puts before each step of a path that is assigned to.
pub const MAKE: &str = "_make";

/// Name of the product that is bound; [`super::syntax`] puts it where a text could be repeated.
pub const TIMES: &str = "!times";

/// Name of the filter that [`super::syntax`] puts behind sums, which may join texts, arrays or objects.
pub const JOINED: &str = "!joined";

/// Name of the filter that [`super::syntax`] puts around what an array collects.
pub const FEW: &str = "!few";

/// Name of the filter that [`super::syntax`] puts before everything that becomes text.
pub const FITS: &str = "!fits";

/// Name of the filter that [`super::syntax`] puts into a definition that calls itself and is given filters: it takes the
/// depth of the recursion.
pub const HANDED_ON: &str = "!handed_on";

/// Functions of a gather.
pub const GROUP: [(&str, usize); 4] = [("items", 0), ("items", 1), ("failures", 0), ("counts", 0)];

/// Natives that are not handed on: they look at the world or speak to it, or are replaced below.
const DROPPED: [&str; 8] =
    ["env", "now", "halt", "debug_empty", "stderr_empty", "localtime", "strflocaltime", "fromjson"];
/// Definitions that use them, and those that are replaced below.
const DROPPED_DEFS: [&str; 10] =
    ["stderr", "debug", "halt", "halt_error", "repeat", "getpath", "setpath", "del", "delpaths", "unique"];

/// What jq has and jaq has not, or has otherwise: jaq's `del` changes the order of fields, its paths do not pass null.
/// Its `unique` (a native below) made a list of every value.
const MORE: &str = r#"
def getpath($path): reduce $path[] as $p (.; _make($p) | .[$p]);
def setpath($path; $x): getpath($path) = $x;
def del(f): delpaths([path(f)]);
def repeat(f): def again: ., (f | again); again;
def combinations($n): . as $all | [range($n) | $all] | combinations;
def IN(s): any(s == .; .);
def IN(src; s): any(src == s; .);
def INDEX(stream; f): reduce stream as $row ({}; .[$row | f | tostring] = $row);
def INDEX(f): INDEX(.[]; f);
def toarray: if isarray then . else [.] end;
def leaf_paths: paths(scalars);
def ascii: [.] | implode;
def date: todate;
def splits($re): splits($re; null);
def hampel($window): hampel($window; 3);
"#;

/// Definitions that every filter can use, parsed once.
pub fn defs() -> &'static [Def<&'static str>] {
    static DEFS: OnceLock<Vec<Def<&'static str>>> = OnceLock::new();
    DEFS.get_or_init(|| {
        let more = jaq_core::load::parse(MORE, |p| p.defs()).expect("the definitions above parse");
        let theirs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let kept = theirs.filter(|def| !DROPPED_DEFS.contains(&def.name) && !is_n_combinations(def));
        // jaq's own definitions use some of ours, and ours some of theirs: `getpath` and `del` need natives only.
        let mut defs: Vec<_> = kept.chain(more).collect();
        for def in &mut defs {
            super::syntax::guard_def(def);
        }
        defs
    })
}

/// Natives that every filter can use; those of a gather only when `group`.
pub fn funs(group: bool) -> impl Iterator<Item = Fun<Jq>> {
    let theirs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let kept = theirs.filter(|(name, ..): &Fun<Jq>| !DROPPED.contains(name));
    let ours = ours().into_iter().map(|f| run::<Jq>(f));
    let of_group = of_group().into_iter().map(|f| run::<Jq>(f)).filter(move |_| group);
    kept.chain(ours).chain(of_group).chain([
        (GUARD, v(0), guard()),
        (HANDED_ON, v(1), handed_on()),
        (WHOLE, Box::new([Bind::Fun(())]), whole()),
        (FEW, Box::new([Bind::Fun(())]), few()),
        (MAKE, v(1), make()),
    ])
}

/// Names that an author can call, with the number of their arguments, sorted.
pub fn names() -> &'static [(&'static str, usize)] {
    static NAMES: OnceLock<Vec<(&'static str, usize)>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let defs = defs().iter().map(|def| (def.name, def.args.len()));
        let natives = funs(true).map(|(name, args, _)| (name, args.len()));
        let mut names: Vec<_> = defs.chain(natives).filter(|(name, _)| !name.starts_with(['!', '_'])).collect();
        names.sort_unstable();
        names.dedup();
        names
    })
}

/// jaq's `combinations($n)` stands on its own `repeat`.
fn is_n_combinations(def: &Def<&str>) -> bool {
    def.name == "combinations" && def.args.len() == 1
}

fn ours() -> Vec<Filter<RunPtr<Jq>>> {
    vec![
        ("median", v(0), |cv| bome(numbers(&cv.1, "median").map(|x| number(stats::median(&x))))),
        ("mad", v(0), |cv| bome(numbers(&cv.1, "mad").map(|x| number(stats::mad(&x))))),
        ("mod_z", v(1), |mut cv| {
            let x = cv.0.pop_var();
            bome(mod_z(&cv.1, &x))
        }),
        ("quantile", v(1), |mut cv| {
            let q = cv.0.pop_var();
            bome(quantile(&cv.1, &q))
        }),
        ("hampel", v(2), |mut cv| {
            let k = cv.0.pop_var();
            let window = cv.0.pop_var();
            bome(hampel(&cv.1, &window, &k))
        }),
        ("ewma", v(1), |mut cv| {
            let lambda = cv.0.pop_var();
            bome(ewma(&cv.1, &lambda))
        }),
        ("delpaths", v(1), |mut cv| {
            let paths = cv.0.pop_var();
            bome(delete_all(cv.1, &paths))
        }),
        ("unique", v(0), |cv| bome(unique(cv.1))),
        ("fromjson", v(0), |cv| bome(from_json(&cv.1))),
        (FITS, v(0), |cv| bome(fits(cv.1))),
        (TIMES, v(2), |mut cv| {
            let right = cv.0.pop_var();
            let left = cv.0.pop_var();
            bome(times(left, right))
        }),
        (JOINED, v(0), |cv| bome(joined(cv.1))),
        ("@csv", v(0), |cv| bome(row(&cv.1, "@csv", ",", |text| format!("\"{}\"", text.replace('"', "\"\""))))),
        ("@tsv", v(0), |cv| {
            bome(row(&cv.1, "@tsv", "\t", |text| {
                text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
            }))
        }),
    ]
}

fn of_group() -> Vec<Filter<RunPtr<Jq>>> {
    vec![
        ("items", v(0), |cv| items(cv.0, None)),
        ("items", v(1), |mut cv| {
            let stage = cv.0.pop_var();
            items(cv.0, Some(stage))
        }),
        ("failures", v(0), |cv| match &cv.0.data().facts.group {
            Some(group) => stream(group.failures()),
            None => fail(NO_GROUP),
        }),
        ("counts", v(0), |cv| match &cv.0.data().facts.group {
            Some(group) => bome(values::to_jq(&group.counts()).map_err(Error::str)),
            None => fail(NO_GROUP),
        }),
    ]
}

const NO_GROUP: &str = "`items`, `failures` and `counts` exist in a gather only";

fn items<'a>(ctx: Ctx<'a, Jq>, stage: Option<Val>) -> ValXs<'a, Val> {
    let Some(group) = &ctx.data().facts.group else { return fail(NO_GROUP) };
    let rows = match &stage {
        None => group.items(None),
        Some(Val::TStr(name)) => group.items(Some(&String::from_utf8_lossy(name))),
        Some(other) => return fail(format!("items(…) needs the name of a stage, not {}", values::clip(other, 40))),
    };
    match rows {
        Ok(rows) => stream(rows),
        Err(sentence) => fail(sentence),
    }
}

fn stream<'a>(rows: crate::lang::Rows) -> ValXs<'a, Val> {
    let row = |row: Result<_, String>| row.and_then(|value| values::to_jq(&value));
    Box::new(rows.map(move |value| row(value).map_err(|sentence| Exn::from(Error::str(sentence)))))
}

fn fail<'a>(sentence: impl ToString) -> ValXs<'a, Val> {
    bome(Err(Error::str(sentence)))
}

/// Stops what repeats without end before it uses up the thread's stack: a filter that calls itself and not as its last
/// step, and a loop that nests its value deeper at every turn (dropping such a value recurses, too).
fn guard() -> Native<Jq> {
    Native::new(|cv| match alarm(&cv.0, &cv.1) {
        None => jaq_core::box_iter::box_once(Ok(cv.1)),
        Some(e) => jaq_core::box_iter::box_once(Err(e)),
    })
    .with_paths(|cv| match alarm(&cv.0, &cv.1.0) {
        None => jaq_core::box_iter::box_once(Ok(cv.1)),
        Some(e) => jaq_core::box_iter::box_once(Err(e)),
    })
    .with_update(|cv, f| match alarm(&cv.0, &cv.1) {
        None => f(cv.1),
        Some(e) => jaq_core::box_iter::box_once(Err(e)),
    })
}

/// `!handed_on($depth)`: the value, unless a filter was handed on so often that using it would overflow the stack.
fn handed_on() -> Native<Jq> {
    fn is_too_deep(context: &mut Ctx<'_, Jq>) -> bool {
        context.pop_var().as_f64().is_none_or(|depth| depth > JQ_HANDED_ON_MAX as f64)
    }
    fn told<'a>() -> Exn<'a, Val> {
        Exn::from(Error::str(format!(
            "a filter calls itself deeper than {JQ_HANDED_ON_MAX} times with a filter that it was given"
        )))
    }
    Native::new(|mut cv| {
        let deep = is_too_deep(&mut cv.0);
        jaq_core::box_iter::box_once(if deep { Err(told()) } else { Ok(cv.1) })
    })
    .with_paths(|mut cv| {
        let deep = is_too_deep(&mut cv.0);
        jaq_core::box_iter::box_once(if deep { Err(told()) } else { Ok(cv.1) })
    })
    .with_update(|mut cv, f| match is_too_deep(&mut cv.0) {
        false => f(cv.1),
        true => jaq_core::box_iter::box_once(Err(told())),
    })
}

/// `!whole(f)`: what `f` gives, no more and no less. jaq keeps the rest of a loop for every round whose body might give
/// one more value, and it cannot tell from a body of several steps: a loop over a million items would hold them all.
fn whole() -> Native<Jq> {
    Native::new(|mut cv| {
        let (f, context) = cv.0.pop_fun();
        gathered(f.run((context, cv.1)))
    })
    .with_paths(|mut cv| {
        let (f, context) = cv.0.pop_fun();
        gathered(f.paths((context, cv.1)))
    })
    .with_update(|mut cv, update| {
        let (f, context) = cv.0.pop_fun();
        f.update((context, cv.1), update)
    })
}

/// `!few(f)`: what `f` gives, until it is more than an array may hold.
fn few() -> Native<Jq> {
    Native::new(|mut cv| {
        let (f, context) = cv.0.pop_fun();
        let values = f.run((context, cv.1)).enumerate();
        Box::new(values.map(|(at, value)| if at < JQ_ELEMENTS_MAX { value } else { Err(Exn::from(too_many())) }))
    })
}

fn too_many() -> Error<Val> {
    Error::str(format!("an array or object of more than {JQ_ELEMENTS_MAX} values"))
}

/// The value, if it can be written.
fn fits(value: Val) -> ValR<Val> {
    values::check_extent(&value).map_err(Error::str)?;
    Ok(value)
}

/// A sum, unless it joined what is too large together: the next one could be twice as large. (To look before the sum would
/// hold its left side a second time, and each sum of a loop would copy it.)
fn joined(sum: Val) -> ValR<Val> {
    match &sum {
        Val::TStr(text) | Val::BStr(text) if text.len() > JQ_TEXT_BYTES_MAX => {
            Err(Error::str(format!("a text longer than {JQ_TEXT_BYTES_MAX} bytes")))
        }
        Val::Arr(list) if list.len() > JQ_ELEMENTS_MAX => Err(too_many()),
        Val::Obj(fields) if fields.len() > JQ_ELEMENTS_MAX => Err(too_many()),
        _ => Ok(sum),
    }
}

/// The same values by an iterator that knows its end; nothing behind the first error.
fn gathered<'a, T: 'a, E: 'a>(mut values: Results<'a, T, E>) -> Results<'a, T, E> {
    match (values.next(), values.next()) {
        (None, _) => Box::new(std::iter::empty()),
        (Some(one), None) => jaq_core::box_iter::box_once(one),
        (Some(error @ Err(_)), _) => jaq_core::box_iter::box_once(error),
        (Some(one), Some(two)) => {
            let mut several = vec![one];
            let mut next = Some(two);
            while let Some(value) = next {
                let is_end = value.is_err();
                several.push(value);
                next = if is_end { None } else { values.next() };
            }
            Box::new(several.into_iter())
        }
    }
}

/// Hands a value on; where it is assigned to and null it becomes an empty object or array, whatever the key needs.
fn make() -> Native<Jq> {
    Native::new(|cv| jaq_core::box_iter::box_once(Ok(cv.1)))
        .with_paths(|cv| jaq_core::box_iter::box_once(Ok(cv.1)))
        .with_update(|mut cv, f| {
            let key = cv.0.pop_var();
            match (cv.1, key) {
                (Val::Null, Val::TStr(_)) => f(Val::obj(jaq_json::Map::default())),
                (Val::Obj(fields), _) if fields.len() >= JQ_ELEMENTS_MAX => {
                    jaq_core::box_iter::box_once(Err(Exn::from(too_many())))
                }
                (Val::Null, Val::Num(n)) => f(extended(Arc::default(), &n)),
                (Val::Arr(list), Val::Num(n)) => f(extended(list, &n)),
                (value, _) => f(value),
            }
        })
}

/// A list with nulls up to an index, if that is behind its end and not absurd.
fn extended(mut list: Arc<Vec<Val>>, index: &Num) -> Val {
    let index = index.as_isize().and_then(|n| usize::try_from(n).ok());
    if let Some(index) = index.filter(|n| (list.len()..JQ_INDEX_MAX).contains(n)) {
        Arc::make_mut(&mut list).resize(index + 1, Val::Null);
    }
    Val::Arr(list)
}

/// A product; a text many times over is refused before it takes the memory.
fn times(left: Val, right: Val) -> ValR<Val> {
    if let (Val::TStr(text) | Val::BStr(text), Val::Num(factor)) | (Val::Num(factor), Val::TStr(text) | Val::BStr(text)) =
        (&left, &right)
        && let Some(factor) = Val::Num(factor.clone()).as_f64()
        && text.len() as f64 * factor > JQ_TEXT_BYTES_MAX as f64
    {
        let bytes = text.len();
        return Err(Error::str(format!(
            "a text of {bytes} bytes times {factor} is longer than {JQ_TEXT_BYTES_MAX} bytes"
        )));
    }
    let bits = |value: &Val| match value {
        Val::Num(Num::BigInt(n)) => n.bits(),
        _ => 0,
    };
    if bits(&left) + bits(&right) > JQ_NUMBER_BITS_MAX {
        return Err(Error::str(format!("a whole number of more than {JQ_NUMBER_BITS_MAX} bits")));
    }
    left * right
}

/// `delpaths`: the paths are deleted from the last to the first, the other fields keep their order.
fn delete_all(value: Val, paths: &Val) -> ValR<Val> {
    let wrong = || Error::str("delpaths needs an array of paths");
    let Val::Arr(paths) = paths else { return Err(wrong()) };
    let mut paths: Vec<&Val> = paths.iter().collect();
    paths.sort_unstable();
    paths.iter().rev().try_fold(value, |value, path| match path {
        Val::Arr(path) if path.len() <= JQ_VALUE_DEPTH_MAX => delete(value, path),
        _ => Err(wrong()),
    })
}

fn delete(value: Val, path: &[Val]) -> ValR<Val> {
    let Some((step, rest)) = path.split_first() else { return Ok(Val::Null) };
    match (value, step) {
        (Val::Null, _) => Ok(Val::Null),
        (Val::Obj(mut fields), Val::TStr(_)) => {
            let map = Arc::make_mut(&mut fields);
            if rest.is_empty() {
                map.shift_remove(step);
            } else if let Some(inner) = map.get_mut(step) {
                *inner = delete(std::mem::take(inner), rest)?;
            }
            Ok(Val::Obj(fields))
        }
        (Val::Arr(mut list), Val::Num(n)) => {
            let place = n.as_isize().map(|n| if n < 0 { n + list.len() as isize } else { n });
            if let Some(place) = place.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < list.len()) {
                let items = Arc::make_mut(&mut list);
                if rest.is_empty() {
                    items.remove(place);
                } else {
                    items[place] = delete(std::mem::take(&mut items[place]), rest)?;
                }
            }
            Ok(Val::Arr(list))
        }
        (Val::Arr(mut list), Val::Obj(slice)) if rest.is_empty() => {
            let length = list.len() as isize;
            let bound = |name: &str, otherwise: isize| match slice.get(&values::text(name)) {
                Some(Val::Num(n)) => n.as_isize().map_or(otherwise, |n| if n < 0 { n + length } else { n }),
                _ => otherwise,
            };
            let (start, end) = (bound("start", 0).clamp(0, length), bound("end", length).clamp(0, length));
            if start < end {
                Arc::make_mut(&mut list).drain(start as usize..end as usize);
            }
            Ok(Val::Arr(list))
        }
        (value, step) => {
            Err(Error::str(format!("cannot delete {} from {}", values::clip(step, 40), values::clip(&value, 40))))
        }
    }
}

fn alarm<'a>(ctx: &Ctx<'a, Jq>, value: &Val) -> Option<Exn<'a, Val>> {
    let data = ctx.data();
    let here = here();
    if data.base.abs_diff(here) > JQ_STACK_BYTES_MAX {
        return Some(Exn::from(Error::str("the filter calls itself too deeply")));
    }
    let guarded = data.guarded.get().wrapping_add(1);
    data.guarded.set(guarded);
    // Looking at the whole value costs as much as it is large: every 64th turn is enough to stay far below the stack.
    if guarded % 64 == 0
        && let Err(sentence) = values::check_extent(value)
    {
        return Some(Exn::from(Error::str(sentence)));
    }
    None
}

/// About where the stack is.
#[inline(never)]
pub fn here() -> usize {
    let mark = 0_u8;
    std::ptr::from_ref(black_box(&mark)).addr()
}

/// The numbers of an array, all finite.
/// The values of an array in jq's order, each once.
fn unique(value: Val) -> ValR<Val> {
    let Val::Arr(list) = value else {
        return Err(Error::str(format!("cannot use {} as array", values::clip(&value, 40))));
    };
    let mut list = Arc::unwrap_or_clone(list);
    list.sort();
    list.dedup();
    Ok(Val::Arr(list.into()))
}

fn numbers(value: &Val, name: &str) -> Result<Vec<f64>, Error<Val>> {
    let Val::Arr(list) = value else {
        return Err(Error::str(format!("{name} needs an array of numbers, not {}", values::clip(value, 40))));
    };
    let one = |x: &Val| match x.as_f64() {
        Some(x) if x.is_finite() => Ok(x),
        _ => Err(Error::str(format!("{name} needs an array of numbers: it holds {}", values::clip(x, 40)))),
    };
    list.iter().map(one).collect()
}

fn argument(value: &Val, name: &str) -> Result<f64, Error<Val>> {
    match value.as_f64() {
        Some(x) if x.is_finite() => Ok(x),
        _ => Err(Error::str(format!("the argument of {name} must be a number, not {}", values::clip(value, 40)))),
    }
}

fn number(x: Option<f64>) -> Val {
    x.map_or(Val::Null, Val::from)
}

fn mod_z(baseline: &Val, x: &Val) -> ValR<Val> {
    Ok(number(stats::mod_z(&numbers(baseline, "mod_z")?, argument(x, "mod_z")?)))
}

fn quantile(values: &Val, q: &Val) -> ValR<Val> {
    let q = argument(q, "quantile")?;
    if !(0.0..=1.0).contains(&q) {
        return Err(Error::str(format!("quantile needs a number from 0 to 1, not {q}")));
    }
    Ok(number(stats::quantile(&numbers(values, "quantile")?, q)))
}

fn hampel(values: &Val, window: &Val, k: &Val) -> ValR<Val> {
    let window = argument(window, "hampel")?;
    if window < 1.0 || window != window.trunc() {
        return Err(Error::str(format!("the window of hampel must be a whole number from 1, not {window}")));
    }
    let marks = stats::hampel(&numbers(values, "hampel")?, window as usize, argument(k, "hampel")?);
    Ok(marks.into_iter().map(Val::Bool).collect())
}

fn ewma(values: &Val, lambda: &Val) -> ValR<Val> {
    let lambda = argument(lambda, "ewma")?;
    if !(lambda > 0.0 && lambda <= 1.0) {
        return Err(Error::str(format!("ewma needs a number above 0 and up to 1, not {lambda}")));
    }
    Ok(stats::ewma(&numbers(values, "ewma")?, lambda).into_iter().map(Val::from).collect())
}

/// jq's `fromjson` with the depth of what it reads bounded.
fn from_json(value: &Val) -> ValR<Val> {
    let Val::TStr(bytes) = value else {
        return Err(Error::str(format!("fromjson needs a text, not {}", values::clip(value, 40))));
    };
    let bad = || Error::str(format!("{} is not JSON of at most {DEPTH_MAX} levels", values::clip(value, 40)));
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| bad())?;
    values::to_jq(&value).map_err(Error::str)
}

/// A row of `@csv` or `@tsv`: texts by `quote`, numbers and booleans as they are, null empty.
fn row(value: &Val, name: &str, between: &str, quote: fn(&str) -> String) -> ValR<Val> {
    let Val::Arr(cells) = value else {
        return Err(Error::str(format!("{name} needs an array, not {}", values::clip(value, 40))));
    };
    let mut line = String::new();
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            line.push_str(between);
        }
        match cell {
            Val::Null => {}
            Val::TStr(text) | Val::BStr(text) => line.push_str(&quote(&String::from_utf8_lossy(text))),
            Val::Bool(_) | Val::Num(_) => {
                let plain = values::from_jq(cell).map_err(Error::str)?;
                write!(line, "{plain}").expect("a String takes everything");
            }
            Val::Arr(_) | Val::Obj(_) => {
                return Err(Error::str(format!("{name} cannot write {} into a cell", values::clip(cell, 40))));
            }
        }
    }
    Ok(values::text(line))
}
