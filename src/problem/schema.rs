//! One declaration for each type that authors write: the macros [`spec!`](crate::spec) and [`choice!`](crate::choice)
//! make from it what serde reads, and the [`Shape`] that the tolerant parser, `explain`, `docs/JOBS.md` and completion
//! walk. Meaning, default and example stand beside the field, once.

use std::fmt;

/// What may stand in a place of the file.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Any text.
    Text,
    /// A text of a kind of its own: a duration, a size, a share. `check` says what is wrong with one.
    Word {
        /// "a duration such as \"90s\" or \"1h 30m\"": completes "write …".
        what: &'static str,
        /// `Err` holds a sentence without the place.
        check: fn(&str) -> Result<(), String>,
    },
    /// A whole number within both bounds.
    Int {
        /// Smallest that is allowed.
        min: i64,
        /// Largest that is allowed.
        max: i64,
    },
    /// A finite number.
    Number,
    /// `true` or `false`.
    Bool,
    /// Any value: what becomes JSON.
    Any,
    /// `[…]` of one shape.
    List(fn() -> Shape),
    /// `{"key": …}` of one shape, a key given once.
    Map(fn() -> Shape),
    /// `(a, b)` of two shapes.
    Pair(fn() -> Shape, fn() -> Shape),
    /// `Name(field: …)`.
    Fields(fn() -> &'static FieldsSchema),
    /// One of several kinds.
    Choice(fn() -> &'static ChoiceSchema),
}

/// A struct that authors write.
#[derive(Debug)]
pub struct FieldsSchema {
    /// As it is written: `Stage`.
    pub name: &'static str,
    /// What it is, for people.
    pub doc: &'static str,
    /// In the order in which they are documented.
    pub fields: &'static [FieldSchema],
}

/// One field of a struct.
pub struct FieldSchema {
    /// As it is written.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// The default as it would be written, or a word for it; empty where there is none.
    pub default: &'static str,
    /// A value as it would be written.
    pub example: &'static str,
    /// False for an `Option`.
    pub required: bool,
    /// What may stand there.
    pub shape: fn() -> Shape,
}

/// An enum that authors write.
#[derive(Debug)]
pub struct ChoiceSchema {
    /// What a value of it is called: `Action`.
    pub name: &'static str,
    /// What it is, for people.
    pub doc: &'static str,
    /// In the order in which they are documented.
    pub variants: &'static [VariantSchema],
}

/// One kind of an enum.
#[derive(Debug)]
pub struct VariantSchema {
    /// As it is written.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// It with what stands behind its name, as it would be written; empty for a kind that is only a name.
    pub example: &'static str,
    /// What stands behind its name.
    pub payload: Payload,
}

impl VariantSchema {
    /// As it would be written, with what it needs.
    pub fn written(&self) -> &'static str {
        if self.example.is_empty() { self.name } else { self.example }
    }
}

/// What stands behind the name of a kind.
pub enum Payload {
    /// Nothing, and no parentheses: `Manual`.
    Unit,
    /// One value: `Cron("30 2 * * *")`.
    Value(fn() -> Shape),
    /// Fields: `After(job: "…")`.
    Fields(fn() -> &'static FieldsSchema),
}

/// A type that can stand in a file that authors write.
pub trait Described {
    /// False for `Option`: the field may be left out.
    const REQUIRED: bool = true;
    /// What may stand in its place.
    fn shape() -> Shape;
}

impl fmt::Debug for FieldSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FieldSchema").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Payload::Unit => "Unit",
            Payload::Value(_) => "Value",
            Payload::Fields(_) => "Fields",
        })
    }
}

impl Described for String {
    fn shape() -> Shape {
        Shape::Text
    }
}

impl Described for bool {
    fn shape() -> Shape {
        Shape::Bool
    }
}

impl Described for u32 {
    fn shape() -> Shape {
        Shape::Int { min: 0, max: u32::MAX as i64 }
    }
}

impl Described for i32 {
    fn shape() -> Shape {
        Shape::Int { min: i32::MIN as i64, max: i32::MAX as i64 }
    }
}

impl Described for f64 {
    fn shape() -> Shape {
        Shape::Number
    }
}

impl<T: Described> Described for Vec<T> {
    fn shape() -> Shape {
        Shape::List(T::shape)
    }
}

impl<T: Described> Described for Option<T> {
    const REQUIRED: bool = false;
    fn shape() -> Shape {
        T::shape()
    }
}

impl<A: Described, B: Described> Described for (A, B) {
    fn shape() -> Shape {
        Shape::Pair(A::shape, B::shape)
    }
}

/// Declares a struct that authors write. Every field is `Option` unless it must be there.
///
/// ```text
/// spec! {
///     /// One stage of a job.
///     pub struct StageSpec as "Stage" {
///         /// Unique in the job.
///         name: String, example "\"vitals\"";
///         /// Items worked on at once.
///         workers: Option<u32>, default "1", example "32";
///     }
/// }
/// ```
#[macro_export]
macro_rules! spec {
    ($(#[doc = $doc:literal])+ pub struct $name:ident as $ron:literal {
        $($(#[doc = $fdoc:literal])+ $field:ident : $ty:ty $(, default $default:literal)? , example $example:literal ;)*
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(rename = $ron, deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $fdoc])+ pub $field: $ty,)*
        }
        impl $name {
            /// What `explain` and the tolerant parser know of it.
            pub fn schema() -> &'static $crate::problem::schema::FieldsSchema {
                static SCHEMA: $crate::problem::schema::FieldsSchema = $crate::problem::schema::FieldsSchema {
                    name: $ron,
                    doc: concat!($($doc, "\n"),+),
                    fields: &[$($crate::problem::schema::FieldSchema {
                        name: stringify!($field),
                        doc: concat!($($fdoc, "\n"),+),
                        default: concat!($($default)?),
                        example: $example,
                        required: <$ty as $crate::problem::schema::Described>::REQUIRED,
                        shape: <$ty as $crate::problem::schema::Described>::shape,
                    },)*],
                };
                &SCHEMA
            }
        }
        impl $crate::problem::schema::Described for $name {
            fn shape() -> $crate::problem::schema::Shape {
                $crate::problem::schema::Shape::Fields($name::schema)
            }
        }
    };
}

/// Declares an enum that authors write: `Name`, `Name(Type)` for one value, `Name { Spec }` for the fields of a struct
/// declared by [`spec!`](crate::spec), written `Name(field: …)`. A kind with a payload has an example.
#[macro_export]
macro_rules! choice {
    (@payload) => { $crate::problem::schema::Payload::Unit };
    (@payload ( $ty:ty )) => { $crate::problem::schema::Payload::Value(<$ty as $crate::problem::schema::Described>::shape) };
    (@payload { $ty:ty }) => { $crate::problem::schema::Payload::Fields(<$ty>::schema) };
    (@read $access:ident, $enum:ident, $variant:ident) => {{
        serde::de::VariantAccess::unit_variant($access)?;
        Ok($enum::$variant)
    }};
    (@read $access:ident, $enum:ident, $variant:ident ( $ty:ty )) => {
        serde::de::VariantAccess::newtype_variant::<$ty>($access).map($enum::$variant)
    };
    (@read $access:ident, $enum:ident, $variant:ident { $ty:ty }) => {
        <$ty as serde::Deserialize>::deserialize($crate::problem::schema::StructVariant::new($access)).map($enum::$variant)
    };
    ($(#[doc = $doc:literal])+ pub enum $name:ident as $what:literal {
        $($(#[doc = $vdoc:literal])+ $variant:ident $(( $ty:ty ))? $({ $spec:ty })? $(example $example:literal)? ,)*
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        #[allow(clippy::large_enum_variant, reason = "read once for each job, and gone when it is checked")]
        pub enum $name {
            $($(#[doc = $vdoc])+ $variant $(( $ty ))? $(( $spec ))? ,)*
        }
        impl $name {
            /// What `explain` and the tolerant parser know of it.
            pub fn schema() -> &'static $crate::problem::schema::ChoiceSchema {
                static SCHEMA: $crate::problem::schema::ChoiceSchema = $crate::problem::schema::ChoiceSchema {
                    name: $what,
                    doc: concat!($($doc, "\n"),+),
                    variants: &[$($crate::problem::schema::VariantSchema {
                        name: stringify!($variant),
                        doc: concat!($($vdoc, "\n"),+),
                        example: concat!($($example)?),
                        payload: $crate::choice!(@payload $(( $ty ))? $({ $spec })?),
                    },)*],
                };
                &SCHEMA
            }
        }
        impl $crate::problem::schema::Described for $name {
            fn shape() -> $crate::problem::schema::Shape {
                $crate::problem::schema::Shape::Choice($name::schema)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visit;
                impl<'de> serde::de::Visitor<'de> for Visit {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, access: A) -> Result<$name, A::Error> {
                        let (variant, access) = access.variant::<$crate::problem::schema::Ident>()?;
                        match variant.0.as_str() {
                            $(stringify!($variant) => $crate::choice!(@read access, $name, $variant $(( $ty ))? $({ $spec })?),)*
                            other => Err(serde::de::Error::unknown_variant(other, VARIANTS)),
                        }
                    }
                }
                const VARIANTS: &[&str] = &[$(stringify!($variant)),*];
                deserializer.deserialize_enum($what, VARIANTS, Visit)
            }
        }
    };
}

/// The name of a kind, as the macros read it.
#[doc(hidden)]
pub struct Ident(pub String);

impl<'de> serde::Deserialize<'de> for Ident {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Ident, D::Error> {
        struct Visit;
        impl serde::de::Visitor<'_> for Visit {
            type Value = Ident;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a kind")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ident, E> {
                Ok(Ident(text.to_owned()))
            }
        }
        deserializer.deserialize_identifier(Visit)
    }
}

/// Reads the fields of a kind by the derive of a struct that stands in a file of its own: `Http(get: …)` is read by
/// `HttpSpec`, without a second pair of parentheses.
#[doc(hidden)]
pub struct StructVariant<A>(A);

impl<A> StructVariant<A> {
    /// Wraps what serde gives behind the name of a kind.
    pub fn new(access: A) -> StructVariant<A> {
        StructVariant(access)
    }
}

impl<'de, A: serde::de::VariantAccess<'de>> serde::Deserializer<'de> for StructVariant<A> {
    type Error = A::Error;

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, visitor)
    }

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _visitor: V) -> Result<V::Value, A::Error> {
        Err(serde::de::Error::custom("only a struct can stand behind the name of a kind"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    spec! {
        /// A stage.
        pub struct Probe as "Probe" {
            /// Its name.
            name: String, example "\"a\"";
            /// How many.
            workers: Option<u32>, default "1", example "4";
            /// What to do.
            run: Vec<Act>, example "[Nap]";
        }
    }
    spec! {
        /// A call.
        pub struct CallSpec as "Call" {
            /// Which.
            handler: Option<String>, example "\"score\"";
        }
    }
    choice! {
        /// What to do.
        pub enum Act as "Action" {
            /// Sleep.
            Nap,
            /// Say it.
            Say(String) example "Say(\"hi\")",
            /// Call it.
            Call { CallSpec } example "Call(handler: \"score\")",
        }
    }

    fn read(text: &str) -> Result<Probe, String> {
        ron::Options::default()
            .with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME)
            .from_str(text)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn kinds_are_written_without_a_second_pair_of_parentheses() {
        let probe =
            read(r#"Probe(name: "x", workers: 3, run: [Nap, Say("hi"), Call(handler: "h"), Call()])"#).expect("reads");
        assert_eq!(probe.workers, Some(3));
        assert_eq!(probe.name, "x");
        assert!(matches!(&probe.run[..], [Act::Nap, Act::Say(s), Act::Call(a), Act::Call(b)]
            if s == "hi" && a.handler.as_deref() == Some("h") && b.handler.is_none()));
        for bad in [
            r#"Probe(name: "x", run: [Nap()])"#,
            r#"Probe(name: "x", run: [Call((handler: "h"))])"#,
            r#"Probe(name: "x", run: [Call(handle: "h")])"#,
            r#"Probe(name: "x", run: Nap)"#,
            r#"Probe(run: [Nap])"#,
            r#"Stage(name: "x", run: [Nap])"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_schema_knows_what_the_declaration_says() {
        let schema = Probe::schema();
        assert_eq!(schema.name, "Probe");
        assert!(schema.fields[0].required && !schema.fields[1].required);
        assert_eq!(schema.fields[1].default, "1");
        assert_eq!(Act::schema().variants.len(), 3);
        assert_eq!(
            Act::schema().variants.iter().map(|kind| kind.example).collect::<Vec<_>>()[..2],
            ["", "Say(\"hi\")"]
        );
    }
}
