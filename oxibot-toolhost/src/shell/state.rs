//! What is known while a script is followed: variables, functions, files it wrote, where it is.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::tree::Command;
use super::value::{HOME, WORK};

/// Values kept. More are unknown.
const MAX_KEPT: usize = 4096;

/// Arrays kept. More are unknown.
const MAX_ARRAYS: usize = 64;

/// The state of the shell, as far as it can be known.
#[derive(Debug)]
pub(super) struct State {
    pub(super) variables: BTreeMap<String, String>,
    /// Arrays by their names, as far as every element can be known.
    pub(super) arrays: BTreeMap<String, Vec<String>>,
    pub(super) functions: BTreeMap<String, Rc<Command>>,
    /// What the script itself wrote into files, by the name it used.
    pub(super) files: BTreeMap<String, String>,
    /// Files the script fetched from the network.
    pub(super) downloaded: BTreeSet<String>,
    pub(super) cwd: String,
    /// `None` where they are known only at run time.
    pub(super) positional: Option<Vec<String>>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            variables: BTreeMap::new(),
            arrays: BTreeMap::new(),
            functions: BTreeMap::new(),
            files: BTreeMap::new(),
            downloaded: BTreeSet::new(),
            cwd: WORK.to_string(),
            positional: None,
        }
    }

    /// The value of a variable, if it can be known.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        if let Some(value) = self.variables.get(name) {
            return Some(value.clone());
        }
        match name {
            "HOME" => Some(HOME.to_string()),
            "PWD" => Some(self.cwd.clone()),
            "IFS" => Some(" \t\n".to_owned()),
            "SHELL" | "BASH" => Some("/bin/bash".to_owned()),
            "TMPDIR" => Some("/tmp".to_owned()),
            "0" => Some("bash".to_owned()),
            "#" => self.positional.as_ref().map(|values| values.len().to_string()),
            name => {
                let number: usize = name.parse().ok()?;
                let values = self.positional.as_ref()?;
                Some(values.get(number.checked_sub(1)?).cloned().unwrap_or_default())
            }
        }
    }

    /// Sets a variable. `None`: its value is known only at run time.
    pub(super) fn set(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) if self.variables.len() < MAX_KEPT => {
                self.variables.insert(name.to_owned(), value);
            }
            Some(_) | None => {
                self.variables.remove(name);
            }
        }
    }

    /// Sets an array, or adds to it. Without an index it is its first element.
    pub(super) fn set_array(&mut self, name: &str, values: Vec<String>, append: bool) {
        let mut all = if append { self.arrays.remove(name).unwrap_or_default() } else { Vec::new() };
        all.extend(values);
        self.set(name, all.first().cloned());
        if all.len() <= MAX_KEPT && self.arrays.len() < MAX_ARRAYS {
            self.arrays.insert(name.to_owned(), all);
        } else {
            self.arrays.remove(name);
        }
    }

    /// Remembers what a file holds now.
    pub(super) fn wrote(&mut self, path: &str, text: Option<&str>, append: bool) {
        let before = if append { self.files.remove(path) } else { None };
        match text {
            Some(text) if self.files.len() < 64 => {
                self.files.insert(path.to_owned(), before.unwrap_or_default() + text);
            }
            Some(_) | None => {
                self.files.remove(path);
            }
        }
    }
}
