//! One way to both databases. Statements are written once: both know parameters as `$1`.

use std::borrow::Cow;

use sqlx::postgres::{PgDatabaseError, PgRow};
use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, Connection as _, Error, PgConnection, PgPool, Row as _, SqliteConnection, SqlitePool,
};

use super::patience::in_time;

/// A parameter of a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Int(i64),
    Bool(bool),
    Text(Option<&'a str>),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Value::Text(Some(value))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Value::Text(Some(value))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Value::Text(value)
    }
}

/// The parameters of a statement.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::store::sql::Value::from($value)),*] };
}
pub(super) use values;

/// A text as both databases keep it. PostgreSQL refuses NUL, and with it the whole transaction: a daemon that gives a VM such a name
/// must not keep the runs of others from being recorded.
pub(super) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A query with its parameters, of either database.
macro_rules! query {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $values {
            query = match *value {
                Value::Int(value) => query.bind(value),
                Value::Bool(value) => query.bind(value),
                Value::Text(value) => query.bind(value.map(storable)),
            };
        }
        query
    }};
}

/// Whether an error is of a statement or of its answer: the connection goes on, once the transaction is rolled back.
pub(super) fn is_of_statement(error: &Error) -> bool {
    matches!(
        error,
        Error::Database(_)
            | Error::Decode(_)
            | Error::Encode(_)
            | Error::ColumnDecode { .. }
            | Error::ColumnNotFound(_)
            | Error::RowNotFound
    )
}

/// SQLite's primary result codes for values that it does not take: too big, a constraint, another type.
const REFUSED_BY_SQLITE: [u32; 3] = [18, 19, 20];

/// PostgreSQL's classes of errors for values that it does not take: data exceptions, constraints, limits of the program, and what a
/// trigger of the database's owner raises.
const REFUSED_BY_POSTGRES: [&str; 4] = ["22", "23", "54", "P0"];

/// Whether a database will not take these values, or a row cannot be read, however often it is tried. What time or an operator can
/// mend is not among it: a full disk, rights, locks, a schema that was changed, a server that ends.
pub(super) fn is_for_good(error: &Error) -> bool {
    let error = match error {
        Error::Database(error) => error,
        error => return matches!(error, Error::Encode(_) | Error::Decode(_) | Error::ColumnDecode { .. }),
    };
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        return REFUSED_BY_POSTGRES.iter().any(|class| error.code().starts_with(class));
    }
    // SQLite's are numbers, of which the low byte is the primary code.
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| REFUSED_BY_SQLITE.contains(&(code & 0xff)))
}

/// A connection. A server has its time for each statement.
#[derive(Debug)]
pub(super) enum Db {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Db {
    /// Returns the number of rows that it changed.
    pub(super) async fn execute(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<i64, Error> {
        let count = match self {
            Db::Sqlite(connection) => query!(sql, values).execute(connection).await?.rows_affected(),
            Db::Postgres(connection) => {
                in_time(query!(sql, values).execute(connection)).await?.rows_affected()
            }
        };
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<DbRow>, Error> {
        match self {
            Db::Sqlite(connection) => {
                let rows = query!(sql, values).fetch_all(connection).await?;
                Ok(rows.into_iter().map(DbRow::Sqlite).collect())
            }
            Db::Postgres(connection) => {
                let rows = in_time(query!(sql, values).fetch_all(connection)).await?;
                Ok(rows.into_iter().map(DbRow::Postgres).collect())
            }
        }
    }

    pub(super) async fn row(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Option<DbRow>, Error> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// The number in the first column of the one row of a query.
    pub(super) async fn number(&mut self, sql: &'static str, values: &[Value<'_>]) -> Result<i64, Error> {
        self.row(sql, values).await?.ok_or(Error::RowNotFound)?.first()
    }

    /// Carries out statements without parameters.
    ///
    /// Transactions are begun and ended by it: SQLite itself rolls one back when the disk is full, which sqlx would still
    /// count as open.
    pub(super) async fn raw(&mut self, sql: &'static str) -> Result<(), Error> {
        match self {
            Db::Sqlite(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            Db::Postgres(connection) => in_time(sqlx::raw_sql(sql).execute(connection)).await.map(drop),
        }
    }

    /// As [`raw`](Self::raw), of a text that has nothing from outside.
    pub(super) async fn raw_text(&mut self, sql: String) -> Result<(), Error> {
        match self {
            Db::Sqlite(connection) => sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop),
            Db::Postgres(connection) => {
                in_time(sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection)).await.map(drop)
            }
        }
    }

    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        match self {
            Db::Sqlite(_) => self.raw("BEGIN IMMEDIATE").await,
            Db::Postgres(_) => self.raw("BEGIN").await,
        }
    }

    pub(super) async fn close(self) {
        // It is of no use any more either way.
        let _ = match self {
            Db::Sqlite(connection) => connection.close().await,
            Db::Postgres(connection) => connection.close().await,
        };
    }
}

/// Connections for reading.
#[derive(Debug, Clone)]
pub(super) enum Readers {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Readers {
    pub(super) async fn rows(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<DbRow>, Error> {
        match self {
            Readers::Sqlite(pool) => {
                let rows = query!(sql, values).fetch_all(pool).await?;
                Ok(rows.into_iter().map(DbRow::Sqlite).collect())
            }
            Readers::Postgres(pool) => {
                let read = in_time(query!(sql, values).fetch_all(pool));
                Ok(read.await?.into_iter().map(DbRow::Postgres).collect())
            }
        }
    }

    pub(super) async fn row(&self, sql: &'static str, values: &[Value<'_>]) -> Result<Option<DbRow>, Error> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }
}

/// A row.
#[derive(Debug)]
pub(super) enum DbRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! get {
    ($row:expr, $name:expr) => {
        match $row {
            DbRow::Sqlite(row) => row.try_get($name),
            DbRow::Postgres(row) => row.try_get($name),
        }
    };
}

impl DbRow {
    pub(super) fn int(&self, name: &str) -> Result<i64, Error> {
        get!(self, name)
    }

    fn first(&self) -> Result<i64, Error> {
        match self {
            DbRow::Sqlite(row) => row.try_get(0),
            DbRow::Postgres(row) => row.try_get(0),
        }
    }

    pub(super) fn some_int(&self, name: &str) -> Result<Option<i64>, Error> {
        get!(self, name)
    }

    pub(super) fn bool(&self, name: &str) -> Result<bool, Error> {
        get!(self, name)
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Error> {
        get!(self, name)
    }

    pub(super) fn some_text(&self, name: &str) -> Result<Option<String>, Error> {
        get!(self, name)
    }
}
