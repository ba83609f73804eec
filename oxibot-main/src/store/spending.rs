//! Tokens each sender used on a day, for budgets. What they were used for is in `usage` and in the journal.

use rusqlite::{OptionalExtension as _, params};

use super::{Database, StoreError};

impl Database {
    /// Tokens a sender used on a day (UTC, `2026-11-30`).
    pub fn spent(&self, day: &str, sender: &str) -> Result<u64, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT tokens FROM spending WHERE day = ?1 AND sender = ?2")?;
        let tokens: Option<i64> = statement.query_row(params![day, sender], |row| row.get(0)).optional()?;
        Ok(tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(0))
    }

    /// Adds to what a sender used, and forgets the days before.
    pub fn spend(&mut self, day: &str, sender: &str, tokens: u64) -> Result<(), StoreError> {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        let transaction = self.write()?;
        transaction.execute("DELETE FROM spending WHERE day < ?1", [day])?;
        transaction.execute(
            "INSERT INTO spending (day, sender, tokens) VALUES (?1, ?2, ?3)
             ON CONFLICT (day, sender) DO UPDATE SET tokens = tokens + excluded.tokens",
            params![day, sender, tokens],
        )?;
        Ok(transaction.commit()?)
    }
}
