//! The macro that makes of one declaration for each variable its row of the table and its typed value.

use std::{collections::HashMap, fmt};

use crate::config::scalar::InvalidValue;

/// Texts by the names of their variables.
pub(crate) type Texts = HashMap<&'static str, String>;

/// A variable with the type of its value.
pub(super) trait Declared {
    type Value;
    const NAME: &'static str;
    const READ: fn(&str) -> Result<Self::Value, InvalidValue>;
}

/// A default of the table that its own reader does not take.
#[derive(Debug)]
pub(crate) struct InvalidDefault {
    name: &'static str,
    problem: String,
}

impl fmt::Display for InvalidDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.problem)
    }
}

/// The typed value; none where nothing was said, and with its fault noted where it is invalid.
pub(super) fn noted<V: Declared>(
    texts: &Texts,
    note: &mut dyn FnMut(&'static str, InvalidValue),
) -> Option<V::Value> {
    typed(V::NAME, V::READ, texts, note)
}

/// The typed default.
pub(super) fn fallback<V: Declared>(default: &str) -> Result<V::Value, InvalidDefault> {
    // Unreachable: a test loads all defaults.
    (V::READ)(default).map_err(|bad| InvalidDefault {
        name: V::NAME,
        problem: bad.problem.into_owned(),
    })
}

// one function for each type, not for each of the many variables
#[inline(never)]
fn typed<T>(
    name: &'static str,
    read: fn(&str) -> Result<T, InvalidValue>,
    texts: &Texts,
    note: &mut dyn FnMut(&'static str, InvalidValue),
) -> Option<T> {
    read(texts.get(name)?).map_err(|bad| note(name, bad)).ok()
}

/// Declares all variables, section by section: `field: Type = "default" { … }`, or without a default
/// `field: Type { … }`, which makes an `Option<Type>` of it.
macro_rules! settings {
    ($($section:ident {$(
        $(#[$attribute:meta])*
        $field:ident: $type:ty $(= $default:literal)? {
            name: $name:literal, applies: $applies:ident, read: $read:expr, form: $form:expr,
            en: $en:literal,
            zh: $zh:literal,
            $($key:ident: $value:expr),* $(,)?
        }
    )*})*) => {
        /// All variables, section by section.
        pub(super) static TABLE: &[Variable] = &[$($(
            Variable {
                $($key: $value,)*
                ..Variable::new(
                    $name,
                    concat!($($default)?),
                    Section::$section,
                    Applies::$applies,
                    $form,
                    Text::new($en, $zh),
                )
            },
        )*)*];

        /// Fields of [`Settings`], with the names of their variables.
        #[cfg(test)]
        pub(super) const FIELDS: &[(&str, &str)] = &[$($((stringify!($field), $name),)*)*];

        #[expect(non_camel_case_types, reason = "named like the fields")]
        mod declared {
            $($(pub(super) enum $field {})*)*
        }

        $($(
            impl Declared for declared::$field {
                type Value = $type;
                const NAME: &'static str = $name;
                const READ: fn(&str) -> Result<$type, InvalidValue> = $read;
            }
        )*)*

        /// All values, typed.
        pub(crate) struct Settings {
            $($(
                $(#[$attribute])*
                #[doc = $en]
                pub(crate) $field: settings!(@type $type $(, $default)?),
            )*)*
        }

        impl Settings {
            /// Reads texts by the names of their variables. An invalid value is noted, and its default, or
            /// none, stands in for it, so that the rest can be checked.
            pub(crate) fn read(
                texts: &Texts,
                note: &mut dyn FnMut(&'static str, InvalidValue),
            ) -> Result<Self, InvalidDefault> {
                Ok(Self {
                    $($($field: settings!(
                        @value noted::<declared::$field>(texts, note), declared::$field $(, $default)?
                    ),)*)*
                })
            }
        }
    };
    (@type $type:ty) => { Option<$type> };
    (@type $type:ty, $default:literal) => { $type };
    (@value $value:expr, $variable:ty) => { $value };
    (@value $value:expr, $variable:ty, $default:literal) => {
        match $value {
            Some(value) => value,
            None => fallback::<$variable>($default)?,
        }
    };
}

pub(super) use settings;
