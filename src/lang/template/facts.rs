//! What a template sees, as minijinja's objects: nothing is converted before a template asks for it, rows of a group are
//! read one after the other.

use crate::{
    item,
    lang::{Facts, Rows},
};
use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Enumerator, Object, ObjectRepr},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The root of a template's variables.
pub struct Root {
    facts: Facts,
    broken: Broken,
}

/// Where a reader of rows leaves the sentence that ended it: minijinja's iterators cannot fail.
pub type Broken = Arc<Mutex<Option<String>>>;

impl Root {
    /// The facts of an item.
    pub fn new(facts: &Facts, broken: Broken) -> Root {
        Root { facts: facts.clone(), broken }
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("facts")
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let facts = &self.facts;
        let group = |what| Value::from_object(Listing { root: self.clone(), what });
        Some(match key {
            "item" => lazy(&facts.item),
            "value" => lazy(&facts.value),
            "key" => Value::from(facts.key.as_str()),
            "state" => lazy(&facts.state),
            "response" => lazy(&facts.response),
            "params" => shared(Node::Params(facts.run.clone())),
            "run" => shared(Node::Run(facts.run.clone())),
            "secret" => Value::from_object(Secrets(self.clone())),
            "items" if facts.group.is_some() => group(What::Items(None)),
            "failures" if facts.group.is_some() => group(What::Failures),
            "counts" => lazy(&facts.group.as_ref()?.counts()),
            _ => return None,
        })
    }
}

/// A JSON value that is walked where it is. A scalar becomes minijinja's own value.
fn lazy(value: &Arc<item::Value>) -> Value {
    shared(Node::Root(value.clone()))
}

fn shared(node: Node) -> Value {
    let node = Arc::new(node);
    match scalar(node.value()) {
        Some(value) => value,
        None => Value::from_object(Json(node)),
    }
}

fn scalar(value: &item::Value) -> Option<Value> {
    Some(match value {
        item::Value::Null => Value::from(()),
        item::Value::Bool(yes) => Value::from(*yes),
        item::Value::String(text) => Value::from(text.as_str()),
        item::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => Value::from(n),
            (_, Some(n)) => Value::from(n),
            _ => Value::from(number.as_f64()?),
        },
        item::Value::Array(_) | item::Value::Object(_) => return None,
    })
}

/// A place inside a value that is shared: found again from the root at each use, so that nothing is copied.
enum Node {
    Root(Arc<item::Value>),
    Params(Arc<crate::lang::RunFacts>),
    Run(Arc<crate::lang::RunFacts>),
    Field(Arc<Node>, Box<str>),
    Element(Arc<Node>, usize),
}

impl Node {
    fn value(&self) -> &item::Value {
        // The place was there when the node was made, and shared values do not change.
        match self {
            Node::Root(value) => value,
            Node::Params(run) => &run.params,
            Node::Run(run) => &run.run,
            Node::Field(parent, name) => parent.value().get(&**name).unwrap_or(&item::Value::Null),
            Node::Element(parent, index) => parent.value().get(*index).unwrap_or(&item::Value::Null),
        }
    }
}

/// A list or an object.
pub struct Json(Arc<Node>);

impl Json {
    /// The value itself.
    pub fn value(&self) -> &item::Value {
        self.0.value()
    }

    fn field(&self, name: &str) -> Option<Value> {
        let value = self.value().as_object()?.get(name)?;
        Some(
            scalar(value)
                .unwrap_or_else(|| Value::from_object(Json(Arc::new(Node::Field(self.0.clone(), name.into()))))),
        )
    }

    fn element(&self, index: usize) -> Option<Value> {
        let value = self.value().as_array()?.get(index)?;
        Some(scalar(value).unwrap_or_else(|| Value::from_object(Json(Arc::new(Node::Element(self.0.clone(), index))))))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
}

impl Object for Json {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.value().is_array() { ObjectRepr::Seq } else { ObjectRepr::Map }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str() {
            Some(name) => self.field(name),
            None => self.element(key.as_usize()?),
        }
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.field(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.value() {
            item::Value::Array(list) => Enumerator::Seq(list.len()),
            item::Value::Object(fields) => {
                Enumerator::Values(fields.keys().map(|name| Value::from(name.as_str())).collect())
            }
            _ => Enumerator::Empty,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value())
    }
}

/// `secret`: gives a secret by its name, and nothing else.
struct Secrets(Arc<Root>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Object for Secrets {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.facts.run.secrets.get(key.as_str()?).map(|secret| Value::from(secret.reveal()))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `items`, `items("stage")`, `failures`: rows of a group.
pub struct Listing {
    root: Arc<Root>,
    what: What,
}

enum What {
    Items(Option<String>),
    Failures,
}

impl Listing {
    fn rows(&self) -> Option<Reader> {
        let group = self.root.facts.group.as_ref()?;
        let rows = match &self.what {
            What::Failures => Ok(group.failures()),
            What::Items(stage) => group.items(stage.as_deref()),
        };
        match rows {
            Ok(rows) => Some(Reader { rows: Mutex::new(rows), broken: self.root.broken.clone() }),
            Err(sentence) => {
                leave(&self.root.broken, sentence);
                None
            }
        }
    }
}

fn leave(broken: &Broken, sentence: String) {
    broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(sentence);
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }
}

impl Object for Listing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.rows() {
            Some(rows) => Enumerator::Iter(Box::new(rows)),
            None => Enumerator::Empty,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.rows().is_some_and(|mut rows| rows.next().is_some())
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        match (&self.what, args) {
            (What::Items(None), [stage]) if stage.as_str().is_some() => {
                let what = What::Items(stage.as_str().map(str::to_owned));
                Ok(Value::from_object(Listing { root: self.root.clone(), what }))
            }
            _ => {
                let sentence = format!("{}only `items` is called, with the name of one stage", super::OWN);
                Err(Error::new(ErrorKind::InvalidOperation, sentence))
            }
        }
    }
}

struct Reader {
    /// Never contended: it makes the reader `Sync`, as minijinja wants it.
    rows: Mutex<Rows>,
    broken: Broken,
}

impl Iterator for Reader {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        match self.rows.get_mut().unwrap_or_else(PoisonError::into_inner).next()? {
            Ok(value) => Some(lazy(&Arc::new(value))),
            Err(sentence) => {
                leave(&self.broken, sentence);
                None
            }
        }
    }
}
