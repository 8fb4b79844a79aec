//! What sqlx wants of a database and [`Local`] does not have: connections, transactions and statements of sqlx's kind. Rows are
//! all that it has, so that the types that read rows are the same for every database. [`Nothing`] has no value.

use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{
    Arguments, ConnectOptions, Connection, Database, Either, Encode, Error, FromRow, IntoArguments, SqlStr, Statement,
    Transaction, Type,
};
use sqlx_core::error::BoxDynError;
use sqlx_core::transaction::TransactionManager;
use url::Url;

use super::row::{Local, LocalColumn, LocalKind, LocalRow, LocalValue};

/// No value is of this type.
#[derive(Clone, Copy, Debug)]
pub enum Nothing {}

/// No arguments: they are bound without sqlx.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoArguments;

impl Database for Local {
    type Connection = Nothing;
    type TransactionManager = Nothing;
    type Row = LocalRow;
    type QueryResult = Affected;
    type Column = LocalColumn;
    type TypeInfo = LocalKind;
    type Value = LocalValue;
    type ValueRef<'r> = &'r LocalValue;
    type Arguments = NoArguments;
    type ArgumentBuffer = ();
    type Statement = Nothing;
    const NAME: &'static str = "SQLite";
    const URL_SCHEMES: &'static [&'static str] = &[];
}

/// Rows that a statement changed; sqlx asks for such a type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Affected;

impl Extend<Self> for Affected {
    fn extend<I: IntoIterator<Item = Self>>(&mut self, _: I) {}
}

type Sqlx<T> = std::result::Result<T, Error>;

fn unsupported() -> Error {
    Error::Configuration("the ledger's own connection is not one of sqlx".into())
}

impl FromStr for Nothing {
    type Err = Error;

    fn from_str(_: &str) -> Sqlx<Self> {
        Err(unsupported())
    }
}

impl ConnectOptions for Nothing {
    type Connection = Self;

    fn from_url(_: &Url) -> Sqlx<Self> {
        Err(unsupported())
    }

    async fn connect(&self) -> Sqlx<Self> {
        Err(unsupported())
    }

    fn log_statements(self, _: LevelFilter) -> Self {
        self
    }

    fn log_slow_statements(self, _: LevelFilter, _: Duration) -> Self {
        self
    }
}

impl Connection for Nothing {
    type Database = Local;
    type Options = Self;

    async fn close(self) -> Sqlx<()> {
        match self {}
    }

    async fn close_hard(self) -> Sqlx<()> {
        match self {}
    }

    async fn ping(&mut self) -> Sqlx<()> {
        match *self {}
    }

    async fn begin(&mut self) -> Sqlx<Transaction<'_, Local>> {
        match *self {}
    }

    fn shrink_buffers(&mut self) {}

    async fn flush(&mut self) -> Sqlx<()> {
        match *self {}
    }

    fn should_flush(&self) -> bool {
        match *self {}
    }
}

impl TransactionManager for Nothing {
    type Database = Local;

    async fn begin(connection: &mut Self, _: Option<SqlStr>) -> Sqlx<()> {
        match *connection {}
    }

    async fn commit(connection: &mut Self) -> Sqlx<()> {
        match *connection {}
    }

    async fn rollback(connection: &mut Self) -> Sqlx<()> {
        match *connection {}
    }

    fn start_rollback(connection: &mut Self) {
        match *connection {}
    }

    fn get_transaction_depth(connection: &Self) -> usize {
        match *connection {}
    }
}

impl Arguments for NoArguments {
    type Database = Local;

    fn reserve(&mut self, _: usize, _: usize) {}

    fn add<'t, T>(&mut self, _: T) -> std::result::Result<(), BoxDynError>
    where
        T: Encode<'t, Local> + Type<Local>,
    {
        Err(unsupported().into())
    }

    fn len(&self) -> usize {
        0
    }
}

impl Statement for Nothing {
    type Database = Local;

    fn into_sql(self) -> SqlStr {
        match self {}
    }

    fn sql(&self) -> &SqlStr {
        match *self {}
    }

    fn parameters(&self) -> Option<Either<&[LocalKind], usize>> {
        match *self {}
    }

    fn columns(&self) -> &[LocalColumn] {
        match *self {}
    }

    fn query(&self) -> Query<'_, Local, NoArguments> {
        match *self {}
    }

    fn query_with<A>(&self, _: A) -> Query<'_, Local, A>
    where
        A: IntoArguments<Local>,
    {
        match *self {}
    }

    fn query_as<O>(&self) -> QueryAs<'_, Local, O, NoArguments>
    where
        O: for<'r> FromRow<'r, LocalRow>,
    {
        match *self {}
    }

    fn query_as_with<'s, O, A>(&'s self, _: A) -> QueryAs<'s, Local, O, A>
    where
        O: for<'r> FromRow<'r, LocalRow>,
        A: IntoArguments<Local>,
    {
        match *self {}
    }

    fn query_scalar<O>(&self) -> QueryScalar<'_, Local, O, NoArguments>
    where
        (O,): for<'r> FromRow<'r, LocalRow>,
    {
        match *self {}
    }

    fn query_scalar_with<'s, O, A>(&'s self, _: A) -> QueryScalar<'s, Local, O, A>
    where
        (O,): for<'r> FromRow<'r, LocalRow>,
        A: IntoArguments<Local>,
    {
        match *self {}
    }
}
