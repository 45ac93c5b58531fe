//! The values that many messages have in common.

use uuid::Uuid;

use crate::xdr::{FromXdr, Reader, Result, ToXdr, Writer, XdrError};

/// A domain as messages name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteDomain {
    /// Its name.
    pub name: String,
    /// Its UUID, by which the daemon finds it.
    pub uuid: Uuid,
    /// Its number while it runs, else -1.
    pub id: i32,
}

impl RemoteDomain {
    /// A domain of which the UUID alone is known: enough for every call, since the daemon looks it up by that.
    pub fn of(uuid: Uuid) -> Self {
        RemoteDomain { name: String::new(), uuid, id: -1 }
    }
}

impl ToXdr for RemoteDomain {
    fn write(&self, to: &mut Writer) -> Result<()> {
        (&self.name, self.uuid, self.id).write(to)
    }
}

impl FromXdr for RemoteDomain {
    const MIN_SIZE: usize = 24;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (name, uuid, id) = FromXdr::read(from)?;
        Ok(RemoteDomain { name, uuid, id })
    }
}

/// A value that says its type (`virTypedParameter`).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A signed number of 32 bits.
    Int(i32),
    /// An unsigned one.
    UInt(u32),
    /// A signed number of 64 bits.
    Long(i64),
    /// An unsigned one.
    ULong(u64),
    /// A number with a fraction.
    Double(f64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(String),
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name: `state.state`.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl FromXdr for Parameter {
    const MIN_SIZE: usize = 12;

    fn read(from: &mut Reader<'_>) -> Result<Self> {
        let (name, kind) = <(String, u32)>::read(from)?;
        let value = match kind {
            1 => Value::Int(i32::read(from)?),
            2 => Value::UInt(u32::read(from)?),
            3 => Value::Long(i64::read(from)?),
            4 => Value::ULong(u64::read(from)?),
            5 => Value::Double(f64::read(from)?),
            // An int on the wire, of which any but 0 is true.
            6 => Value::Bool(i32::read(from)? != 0),
            7 => Value::Text(String::read(from)?),
            value => return Err(XdrError::Unknown { what: "the type of a parameter", value }),
        };
        Ok(Parameter { name, value })
    }
}

/// A daemon's side.
impl ToXdr for Parameter {
    fn write(&self, to: &mut Writer) -> Result<()> {
        self.name.write(to)?;
        match &self.value {
            Value::Int(number) => (1u32, *number).write(to),
            Value::UInt(number) => (2u32, *number).write(to),
            Value::Long(number) => (3u32, *number).write(to),
            Value::ULong(number) => (4u32, *number).write(to),
            Value::Double(number) => (5u32, *number).write(to),
            Value::Bool(flag) => (6u32, *flag).write(to),
            Value::Text(text) => (7u32, text).write(to),
        }
    }
}

/// Named values, in the daemon's order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters(
    /// The values.
    pub Vec<Parameter>,
);

impl Parameters {
    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|parameter| parameter.name == name).map(|parameter| &parameter.value)
    }

    /// The whole number of that name, whatever its width. None too where it does not fit.
    pub fn number(&self, name: &str) -> Option<i64> {
        match *self.get(name)? {
            Value::Int(number) => Some(number.into()),
            Value::UInt(number) => Some(number.into()),
            Value::Long(number) => Some(number),
            Value::ULong(number) => number.try_into().ok(),
            _ => None,
        }
    }

    /// The text of that name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdr::{decode, encode};

    #[test]
    fn a_parameter_of_each_type() {
        let mut wire = Vec::new();
        for (kind, value) in [
            (1u32, encode(&-1).unwrap()),
            (2, encode(&7u32).unwrap()),
            (3, encode(&-8i64).unwrap()),
            (4, encode(&u64::MAX).unwrap()),
            (5, encode(&0.5).unwrap()),
            (6, encode(&2).unwrap()),
            (7, encode("x").unwrap()),
        ] {
            wire.extend(encode(&("p", kind)).unwrap());
            wire.extend(value);
        }
        let mut reader = Reader::new(&wire);
        let values: Vec<_> = (0..7).map(|_| Parameter::read(&mut reader).unwrap().value).collect();
        let expected = [
            Value::Int(-1),
            Value::UInt(7),
            Value::Long(-8),
            Value::ULong(u64::MAX),
            Value::Double(0.5),
            Value::Bool(true),
            Value::Text("x".into()),
        ];
        assert_eq!(values, expected);
        for value in expected {
            let parameter = Parameter { name: "p".into(), value };
            assert_eq!(decode(&encode(&parameter).unwrap()), Ok(parameter));
        }
        let unknown = encode(&("p", 8u32, 0u32)).unwrap();
        assert!(matches!(decode::<Parameter>(&unknown), Err(XdrError::Unknown { value: 8, .. })));
    }

    #[test]
    fn parameters_are_found_by_name() {
        let parameter = |name: &str, value| Parameter { name: name.into(), value };
        let parameters = Parameters(vec![
            parameter("a", Value::UInt(3)),
            parameter("b", Value::Text("x".into())),
            parameter("c", Value::ULong(u64::MAX)),
        ]);
        assert_eq!((parameters.number("a"), parameters.text("b")), (Some(3), Some("x")));
        assert_eq!(
            (parameters.number("b"), parameters.number("c"), parameters.text("d")),
            (None, None, None)
        );
    }
}
