//! The actions of a stage in sequence on one item.

use super::options::Preview;
use crate::{
    action::{Acted, Checked, Gives, Handed, ItemContext, Out, Stop},
    item::{Class, Failure, Value},
    job::Stage,
    lang::{Facts, Secret},
    limits::{DEPTH_MAX, VALUES_PER_ITEM_MAX},
    world::plant::{Bug, planted},
};
use smallvec::SmallVec;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// How many items a dry run prints for each stage.
const PREVIEWED_ITEMS: u32 = 3;

/// What a dry run shows for a secret.
const MASK: &str = "***";
const MASK_IN_URL: &str = "%2A%2A%2A";

/// What a dry run prints, and for how many items of each stage it did.
pub struct DryRun {
    preview: Preview,
    /// By the place of the stage.
    printed: Vec<AtomicU32>,
}

impl DryRun {
    /// For a job of so many stages.
    pub fn new(preview: Preview, stages: usize) -> DryRun {
        DryRun { preview, printed: (0..stages).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Takes the place of one item among those of its stage that are printed.
    pub fn print_this_item(&self, place: u16) -> bool {
        self.printed[usize::from(place)].fetch_add(1, Ordering::Relaxed) < PREVIEWED_ITEMS
    }
}

/// How a dry run goes about one item.
#[derive(Clone, Copy)]
pub struct Dry<'a> {
    pub run: &'a DryRun,
    pub print: bool,
    /// Sources list in a dry run too: only what gives nothing, or writes, is printed instead.
    pub in_source: bool,
}

/// What bounds the work on one item.
pub struct Within<'a> {
    /// JSON that it may give at each action.
    pub max_bytes: u64,
    /// What came in is known to be within that.
    pub fits: bool,
    pub dry: Option<Dry<'a>>,
    /// True once no further action may begin.
    pub is_cut: &'a (dyn Fn() -> bool + Sync),
}

/// What an item gave: mostly one value, which takes no memory for a list.
pub type Values = SmallVec<[Arc<Value>; 1]>;

/// The heads of the answers that values came from, by their places; `None`, and what is missing: the one in the facts.
type Heads = Vec<Option<Arc<Value>>>;

/// Whether whatever the stage gives was held to its `max_value`: not what came out of an `into`, nor what later actions of a
/// source made.
pub fn is_measured(stage: &Stage) -> bool {
    let made = stage.actions.iter().rposition(|checked| checked.gives != Gives::PassesOn);
    made.is_some_and(|last| stage.actions[last].gives == Gives::Values && (last == 0 || !stage.is_source()))
}

/// Runs `actions` on `value` and gives what the last one gave; none left is an empty list. All or nothing: the first action
/// that fails fails the item (RUNS K3). `facts` hold the rest of what the actions see; value and response in them change.
pub async fn work(
    actions: &[Checked],
    cx: &mut ItemContext,
    facts: &mut Facts,
    value: Arc<Value>,
    within: Within<'_>,
) -> Result<Values, Box<Stop>> {
    let Within { max_bytes, mut fits, dry, is_cut } = within;
    let (mut current, mut heads) = (Values::from_buf([value]), Heads::new());
    let mut first_response = None;
    for (place, checked) in actions.iter().enumerate() {
        cx.action_place = place as u16;
        let (mut next, mut next_heads) = (Values::new(), Heads::new());
        let mut bytes_left = max_bytes;
        let fits_alone = fits && current.len() == 1;
        for (index, value) in current.into_iter().enumerate() {
            if is_cut() {
                return Err(Stop::Cut.into());
            }
            cx.value_place = index as u32;
            facts.value = value;
            let head = heads.get_mut(index).and_then(Option::take);
            if let Some(response) = head.clone().or_else(|| first_response.clone()) {
                let before = std::mem::replace(&mut facts.response, response);
                first_response.get_or_insert(before);
            }
            if let Some(dry) = dry
                && !(dry.in_source && checked.gives != Gives::PassesOn && !checked.writes)
                && let Some(line) = checked.action.preview(&masked(facts))
            {
                let line = line.map_err(|failure| Stop::Failed { failure, given_up: true })?;
                if dry.print {
                    // In a URL the mask was encoded as every value is.
                    let line = line.replace(MASK_IN_URL, MASK);
                    (dry.run.preview)(&format!("{} {}: {line}", cx.stage, facts.key));
                }
                if checked.gives != Gives::PassesOn {
                    return Err(Stop::Empty.into());
                }
                keep_head(&mut next_heads, next.len(), 1, head);
                next.push(facts.value.clone());
                continue;
            }
            let room = VALUES_PER_ITEM_MAX - next.len();
            let own = fits_alone.then_some(&facts.value);
            let mut out = Collected { values: Values::new(), bytes_left, max_bytes, room, own, response: None };
            let ran = checked.action.run(cx, facts, &mut out).await;
            if ran.is_err() && !next.is_empty() && planted(Bug::FanOutLeaks) {
                break;
            }
            ran?;
            bytes_left = out.bytes_left;
            let Collected { values, response, .. } = out;
            let head = response.or(head);
            match &checked.gives {
                Gives::PassesOn => {
                    keep_head(&mut next_heads, next.len(), 1, head);
                    next.push(facts.value.clone());
                }
                Gives::Values => {
                    keep_head(&mut next_heads, next.len(), values.len(), head);
                    match next.is_empty() {
                        true => next = values,
                        false => next.extend(values),
                    }
                }
                Gives::Into { name, list } => {
                    if let Some(given) = folded(values, *list) {
                        keep_head(&mut next_heads, next.len(), 1, head);
                        next.push(Arc::new(with_field(&facts.value, name, given)?));
                    }
                }
            }
        }
        fits = match checked.gives {
            Gives::PassesOn => fits,
            Gives::Values => true,
            Gives::Into { .. } => false,
        };
        (current, heads) = (next, next_heads);
    }
    Ok(current)
}

/// Notes the head of the answer that so many values, from that place on, came from.
fn keep_head(heads: &mut Heads, place: usize, values: usize, head: Option<Arc<Value>>) {
    if head.is_some() {
        heads.resize(place, None);
        heads.resize(place + values, head);
    }
}

/// What `into` puts into the field: always a list, or the value alone, a list where there are several, nothing for none.
fn folded(values: Values, list: bool) -> Option<Value> {
    let mut values: Vec<Value> = values.into_iter().map(Arc::unwrap_or_clone).collect();
    match values.len() {
        _ if list => Some(Value::Array(values)),
        0 => None,
        1 => values.pop(),
        _ => Some(Value::Array(values)),
    }
}

fn with_field(value: &Value, name: &str, given: Value) -> Result<Value, Box<Stop>> {
    let mut object = match value {
        Value::Object(object) => object.clone(),
        Value::Null => serde_json::Map::new(),
        other => {
            let kind = kind_of(other);
            return Err(Stop::given_up(
                Class::Data,
                format!("`into: \"{name}\"` needs an object to put its field into, and the value is {kind}"),
            ));
        }
    };
    object.insert(name.to_owned(), given);
    Ok(Value::Object(object))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The same facts with every secret as `***`, for what is printed.
fn masked(facts: &Facts) -> Facts {
    let mut facts = facts.clone();
    facts.run = Arc::new(crate::lang::RunFacts {
        params: facts.run.params.clone(),
        run: facts.run.run.clone(),
        secrets: facts.run.secrets.keys().map(|name| (name.clone(), Secret::new(MASK))).collect(),
    });
    facts
}

/// Collects what an action gives, within the bounds of an item.
struct Collected<'a> {
    values: Values,
    bytes_left: u64,
    max_bytes: u64,
    room: usize,
    /// What the action works on, if that is known to be within the bounds: handed back alone it need not be measured again.
    own: Option<&'a Arc<Value>>,
    response: Option<Arc<Value>>,
}

impl Collected<'_> {
    fn add(&mut self, value: Arc<Value>) -> Acted {
        if self.values.len() >= self.room {
            return Err(Stop::given_up(
                Class::TooLarge,
                format!("the item gave more than {VALUES_PER_ITEM_MAX} values: give them a stage of their own"),
            ));
        }
        if let Some(own) = self.own {
            if self.values.is_empty() && Arc::ptr_eq(own, &value) {
                self.values.push(value);
                return Ok(());
            }
            self.own = None;
            self.bytes_left -= self.values.iter().map(|value| json_bytes(value)).sum::<u64>().min(self.bytes_left);
        }
        let bytes = json_bytes(&value);
        if bytes > self.bytes_left {
            return Err(Stop::given_up(
                Class::TooLarge,
                "the item gave more bytes of JSON than `max_value` allows: raise it, or give less by Jq",
            ));
        }
        self.bytes_left -= bytes;
        self.values.push(value);
        Ok(())
    }
}

impl Out for Collected<'_> {
    fn hand(&mut self, value: Arc<Value>) -> Handed<'_> {
        Handed::now(self.add(value))
    }

    fn bad(&mut self, failure: Failure) -> Handed<'_> {
        Handed::now(Err(Stop::Failed { failure, given_up: true }.into()))
    }

    fn response(&mut self, head: Arc<Value>) {
        self.response = Some(head);
    }

    fn max_value(&self) -> u64 {
        self.max_bytes
    }
}

/// What is wrong with a value that goes on to other stages: one that is nested deeper than the store can read back would
/// break the run at a gather or after a long wait, so it is the failure of its item instead.
pub fn too_deep(value: &Value) -> Option<Failure> {
    fn within(value: &Value, levels: usize) -> bool {
        match value {
            Value::Array(items) => levels > 0 && items.iter().all(|item| within(item, levels - 1)),
            Value::Object(fields) => levels > 0 && fields.values().all(|item| within(item, levels - 1)),
            _ => true,
        }
    }
    let most = DEPTH_MAX - 1;
    let message = || format!("the item gave a value that is nested deeper than {most} levels: flatten it by Jq");
    (!within(value, most)).then(|| Failure::new(Class::Data, message()))
}

/// How many bytes a value takes as compact JSON, within a few for texts with escapes.
pub fn json_bytes(value: &Value) -> u64 {
    match value {
        Value::Null => 4,
        Value::Bool(_) => 5,
        Value::Number(number) => number.as_u64().map_or(12, |n| u64::from(n.checked_ilog10().unwrap_or(0)) + 1),
        Value::String(text) => text.len() as u64 + 2,
        Value::Array(list) => 2 + list.iter().map(|value| json_bytes(value) + 1).sum::<u64>(),
        Value::Object(object) => {
            2 + object.iter().map(|(name, value)| name.len() as u64 + 4 + json_bytes(value)).sum::<u64>()
        }
    }
}
