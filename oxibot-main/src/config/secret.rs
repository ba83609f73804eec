//! How a secret is declared in the configuration: its schema, and the mask it is shown by.
//!
//! It never reads one (see `sources.rs`) and has no way to print one.

use std::collections::BTreeMap;

use schemars::{Schema, SchemaGenerator, json_schema};
use secrecy::SecretString;
use serde::Serializer;
use serde::ser::SerializeMap;

/// What stands where a secret is.
pub const MASK: &str = "***";

/// Schema keyword that marks a secret; the reader, `config show` and the permission check go by it.
pub(crate) const KEYWORD: &str = "x-secret";

/// Schema keyword that gives the older name of a key.
pub(crate) const ALIAS: &str = "x-alias";

pub(crate) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "writeOnly": true, "x-secret": true })
}

/// Serialises to [`MASK`]; a configuration that is written out can therefore not leak one.
pub(crate) fn masked<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_str(MASK),
        None => serializer.serialize_none(),
    }
}

/// Header values are masked whole: people put keys into them under any name.
pub(crate) fn masked_map<S: Serializer>(
    headers: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(headers.len()))?;
    for name in headers.keys() {
        map.serialize_entry(name, MASK)?;
    }
    map.end()
}

/// Whether a header of this name carries a credential.
pub(crate) fn is_credential_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["auth", "key", "token", "secret", "cookie", "password"].iter().any(|word| name.contains(word))
}
