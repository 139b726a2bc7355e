//! The macro that makes of one declaration for each variable its row of the table, the text that envy reads,
//! and the typed value.

use crate::config::scalar::InvalidValue;

/// A variable with the type of its value.
pub(super) trait Declared {
    type Value;
    const NAME: &'static str;
    const READ: fn(&str) -> Result<Self::Value, InvalidValue>;
}

/// The typed value of a text; none where nothing was said, and with its fault noted where it is invalid.
pub(super) fn noted<V: Declared>(
    text: Option<String>,
    note: &mut dyn FnMut(&'static str, InvalidValue),
) -> Option<V::Value> {
    typed(V::NAME, V::READ, &text?, note)
}

/// The typed default.
pub(super) fn fallback<V: Declared>(default: &str) -> Result<V::Value, envy::Error> {
    // Unreachable: a test loads all defaults.
    typed_default(V::NAME, V::READ, default)
}

// These two are functions of a type of values, not of one of the many variables.

#[inline(never)]
fn typed<T>(
    name: &'static str,
    read: fn(&str) -> Result<T, InvalidValue>,
    text: &str,
    note: &mut dyn FnMut(&'static str, InvalidValue),
) -> Option<T> {
    read(text).map_err(|bad| note(name, bad)).ok()
}

#[inline(never)]
fn typed_default<T>(
    name: &'static str,
    read: fn(&str) -> Result<T, InvalidValue>,
    default: &str,
) -> Result<T, envy::Error> {
    read(default).map_err(|bad| envy::Error::Custom(format!("{name}: {}", bad.problem)))
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

        // texts, which are read one by one: so that all faults are found, not just the first
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct SettingTexts {
            $($($field: Option<String>,)*)*
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
                let texts: SettingTexts = envy::from_iter(texts)?;
                Ok(Self {
                    $($($field: settings!(
                        @value noted::<declared::$field>(texts.$field, note), declared::$field $(, $default)?
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
