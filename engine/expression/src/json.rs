//! Text of JSON to columns and back.
//!
//! `json_float(text, 'engine.rpm')`, `json_int`, `json_text`, `json_bool` read a member; steps of a
//! path are parted by dots, and a number is a place in an array. What is not there, or is null, is
//! NULL; what is there and of another type, or a text that is no JSON, fails its row.
//! `json_object('a', x, 'b', y)` writes an object.

use std::{fmt, sync::Arc};

use arrow_array::{
    Array, ArrayRef, StringArray,
    builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder},
    cast::AsArray as _,
};
use arrow_cast::{
    cast,
    display::{ArrayFormatter, FormatOptions},
};
use arrow_schema::DataType;
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use serde_json::Value;

/// The functions of this module.
pub(crate) fn json_functions() -> Vec<Arc<ScalarUDF>> {
    let members = [Member::Float, Member::Int, Member::Text, Member::Bool];
    let read = members.map(|member| Arc::new(ScalarUDF::from(ReadMember::new(member))));
    let mut functions = Vec::from(read);
    functions.push(Arc::new(ScalarUDF::from(WriteObject::new())));
    functions
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Member {
    Float,
    Int,
    Text,
    Bool,
}

#[derive(PartialEq, Eq, Hash)]
struct ReadMember {
    member: Member,
    signature: Signature,
}

impl ReadMember {
    fn new(member: Member) -> Self {
        let text = vec![DataType::Utf8, DataType::Utf8];
        Self {
            member,
            signature: Signature::exact(text, Volatility::Immutable),
        }
    }
}

impl fmt::Debug for ReadMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ScalarUDFImpl for ReadMember {
    fn name(&self) -> &str {
        match self.member {
            Member::Float => "json_float",
            Member::Int => "json_int",
            Member::Text => "json_text",
            Member::Bool => "json_bool",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.member {
            Member::Float => DataType::Float64,
            Member::Int => DataType::Int64,
            Member::Text => DataType::Utf8,
            Member::Bool => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [texts, paths] = &arrays[..] else {
            return exec_err!("{} takes a text and a path", self.name());
        };
        let texts = texts.as_string::<i32>();
        let paths = paths.as_string::<i32>();
        let read = |row: usize| -> Result<Option<Value>> {
            if texts.is_null(row) || paths.is_null(row) {
                return Ok(None);
            }
            let root: Value = match serde_json::from_str(texts.value(row)) {
                Ok(root) => root,
                Err(error) => return exec_err!("the text is not JSON: {error}"),
            };
            Ok(member(root, paths.value(row)))
        };
        let rows = rows.min(texts.len());
        let wrong = |row: usize, found: &Value| {
            exec_err!(
                "`{}` is {found}, which {} does not take",
                paths.value(row),
                self.name()
            )
        };
        let values: ArrayRef = match self.member {
            Member::Float => {
                let mut out = Float64Builder::with_capacity(rows);
                for row in 0..rows {
                    match read(row)? {
                        None => out.append_null(),
                        Some(value) => match value.as_f64() {
                            Some(number) => out.append_value(number),
                            None => return wrong(row, &value),
                        },
                    }
                }
                Arc::new(out.finish())
            }
            Member::Int => {
                let mut out = Int64Builder::with_capacity(rows);
                for row in 0..rows {
                    match read(row)? {
                        None => out.append_null(),
                        Some(value) => match value.as_i64() {
                            Some(number) => out.append_value(number),
                            None => return wrong(row, &value),
                        },
                    }
                }
                Arc::new(out.finish())
            }
            Member::Bool => {
                let mut out = BooleanBuilder::with_capacity(rows);
                for row in 0..rows {
                    match read(row)? {
                        None => out.append_null(),
                        Some(value) => match value.as_bool() {
                            Some(is_true) => out.append_value(is_true),
                            None => return wrong(row, &value),
                        },
                    }
                }
                Arc::new(out.finish())
            }
            Member::Text => {
                let mut out = StringBuilder::with_capacity(rows, 0);
                for row in 0..rows {
                    match read(row)? {
                        None => out.append_null(),
                        Some(Value::String(text)) => out.append_value(text),
                        // Everything has a text.
                        Some(value) => out.append_value(value.to_string()),
                    }
                }
                Arc::new(out.finish())
            }
        };
        Ok(ColumnarValue::Array(values))
    }
}

/// The member at a path, unless it is not there or null.
fn member(root: Value, path: &str) -> Option<Value> {
    let mut value = root;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        value = match value {
            Value::Object(mut members) => members.remove(step)?,
            Value::Array(mut items) => {
                let index: usize = step.parse().ok()?;
                (index < items.len()).then(|| items.swap_remove(index))?
            }
            _ => return None,
        };
    }
    (!value.is_null()).then_some(value)
}

#[derive(PartialEq, Eq, Hash)]
struct WriteObject {
    signature: Signature,
}

impl WriteObject {
    fn new() -> Self {
        Self {
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }
}

impl fmt::Debug for WriteObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ScalarUDFImpl for WriteObject {
    fn name(&self) -> &str {
        "json_object"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        if arguments.is_empty() || !arguments.len().is_multiple_of(2) {
            return plan_err!(
                "json_object takes names and values in turn: json_object('a', x, 'b', y)"
            );
        }
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let mut members: Vec<(StringArray, ArrayRef)> = Vec::new();
        for pair in arrays.chunks_exact(2) {
            let names = cast(&pair[0], &DataType::Utf8)?;
            members.push((names.as_string::<i32>().clone(), Arc::clone(&pair[1])));
        }
        let rows = arrays.first().map_or(0, |array| array.len());
        let options = FormatOptions::default();
        let mut out = StringBuilder::with_capacity(rows, 0);
        for row in 0..rows {
            let mut text = String::from("{");
            for (names, values) in &members {
                if names.is_null(row) {
                    return exec_err!("a name in json_object is NULL");
                }
                if text.len() > 1 {
                    text.push(',');
                }
                text.push_str(&Value::from(names.value(row)).to_string());
                text.push(':');
                text.push_str(&json_of(values, row, &options)?);
            }
            text.push('}');
            out.append_value(text);
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish())))
    }
}

/// A value as JSON: numbers and truth as they are, everything else as a text.
fn json_of(values: &ArrayRef, row: usize, options: &FormatOptions<'_>) -> Result<String> {
    if values.is_null(row) {
        return Ok("null".to_owned());
    }
    let text = ArrayFormatter::try_new(values, options)?
        .value(row)
        .try_to_string()?;
    let is_plain = *values.data_type() == DataType::Boolean
        || (values.data_type().is_numeric() && text.parse::<f64>().is_ok_and(f64::is_finite));
    Ok(if is_plain {
        text
    } else {
        Value::from(text).to_string()
    })
}
