//! A fleet in memory, and connections to it.

use atp_fleet::{Fleet, FleetOptions};
use atp_rpc::agent::AgentTimeout;
use atp_rpc::{CallError, ConnectError, ConnectOptions, Connection, RemoteDomain};
use serde_json::{Value, json};

pub(crate) fn fleet(options: FleetOptions) -> Fleet {
    Fleet::in_memory(options).unwrap()
}

pub(crate) async fn try_connect(fleet: &Fleet, host: u32) -> Result<Connection, ConnectError> {
    let io = fleet.host(host).unwrap().connect();
    let uri = "qemu:///system".parse().unwrap();
    Connection::over(io, true, &uri, &ConnectOptions::default()).await
}

pub(crate) async fn connect(fleet: &Fleet, host: u32) -> Connection {
    try_connect(fleet, host).await.unwrap()
}

pub(crate) async fn vm1(connection: &Connection) -> RemoteDomain {
    connection.domain_by_name("vm1").await.unwrap()
}

/// Has the agent carry out a command, and returns what it returns.
pub(crate) async fn agent(
    connection: &Connection,
    vm: &RemoteDomain,
    command: &str,
    arguments: Value,
) -> Result<Value, CallError> {
    let command = json!({"execute": command, "arguments": arguments}).to_string();
    let reply = connection.agent_command(vm, &command, AgentTimeout::Default).await?;
    let mut reply: Value = serde_json::from_str(&reply.unwrap()).unwrap();
    Ok(reply["return"].take())
}

/// Starts a program.
pub(crate) async fn exec(
    connection: &Connection,
    vm: &RemoteDomain,
    program: &str,
) -> Result<i64, CallError> {
    let started =
        agent(connection, vm, "guest-exec", json!({"path": program, "capture-output": true})).await?;
    Ok(started["pid"].as_i64().unwrap())
}
