//! The macro that makes of one declaration for each variable its row of the table, the value that envy reads,
//! and the typed value.

use serde::{Deserialize, Deserializer};

use crate::config::scalar::InvalidValue;

/// A variable with the type of its value.
pub(super) trait Declared {
    type Value;
    const NAME: &'static str;
    const READ: fn(&str) -> Result<Self::Value, InvalidValue>;
}

/// A value as envy reads it: typed, or the reason for which it is not. Reading it never fails, so that all
/// faults are found, not just the first.
pub(super) struct Checked<V: Declared>(Result<V::Value, InvalidValue>);

impl<'de, V: Declared> Deserialize<'de> for Checked<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self((V::READ)(&text)))
    }
}

/// The typed value; none where nothing was said, and with its fault noted where it is invalid.
pub(super) fn noted<V: Declared>(
    checked: Option<Checked<V>>,
    note: &mut dyn FnMut(&'static str, InvalidValue),
) -> Option<V::Value> {
    let Checked(value) = checked?;
    value.map_err(|bad| note(V::NAME, bad)).ok()
}

/// The typed default.
pub(super) fn fallback<V: Declared>(default: &str) -> Result<V::Value, envy::Error> {
    // Unreachable: a test loads all defaults.
    (V::READ)(default).map_err(|bad| envy::Error::Custom(format!("{}: {}", V::NAME, bad.problem)))
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

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct CheckedSettings {
            $($($field: Option<Checked<declared::$field>>,)*)*
        }

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
                texts: impl IntoIterator<Item = (String, String)>,
                note: &mut dyn FnMut(&'static str, InvalidValue),
            ) -> Result<Self, envy::Error> {
                let checked: CheckedSettings = envy::from_iter(texts)?;
                Ok(Self {
                    $($($field: settings!(
                        @value noted(checked.$field, note), declared::$field $(, $default)?
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
