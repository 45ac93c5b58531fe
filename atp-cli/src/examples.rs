//! The examples that end each command's help. A test parses every one of them.

pub(crate) const ATP: &str = "\
Selectors of VMs, [HOST/]VM:
  'web-*'           the VMs of that name on every host
  'node7/'          all VMs of a host
  '@rack-2/db-1'    a VM on each host of a group
  '/^web-[0-9]+$/'  a regular expression on the name

Examples:
  atp --host demo=test:///default vm list
  atp exec 'web-*' --timeout 10s -- uname -r

Exit codes:
  0 all targets ok   1 some are not   2 usage or configuration   4 nothing matched
  70 a bug in atp    130, 143 interrupted";

pub(crate) const HOST: &str = "\
Examples:
  atp host list
  atp host check '@rack-2' --timeout 5s";

pub(crate) const HOST_LIST: &str = "\
Examples:
  atp host list
  atp host list -o json";

pub(crate) const HOST_CHECK: &str = "\
Examples:
  atp host check
  atp host check 'node*' --timeout 5s";

pub(crate) const VM: &str = "\
Examples:
  atp vm list
  atp vm shutdown 'node7/' --exclude 'db-*' --wait";

pub(crate) const VM_LIST: &str = "\
Examples:
  atp vm list
  atp vm list '@rack-2/web-*' --state running -o json";

pub(crate) const VM_INFO: &str = "\
Examples:
  atp vm info web-1
  atp vm info 'node7/*' -o jsonl";

pub(crate) const VM_START: &str = "\
Examples:
  atp vm start web-1
  atp vm start 'node7/*' --state shut-off --wait";

pub(crate) const VM_SHUTDOWN: &str = "\
Examples:
  atp vm shutdown web-1 --wait --timeout 2m
  atp vm shutdown 'node7/' --exclude 'db-*' --yes";

pub(crate) const VM_REBOOT: &str = "\
Examples:
  atp vm reboot web-1
  atp vm reboot '/^web-[0-9]+$/' --yes";

pub(crate) const VM_RESET: &str = "\
Examples:
  atp vm reset node7/web-1
  atp vm reset 'web-*' --dry-run";

pub(crate) const VM_DESTROY: &str = "\
Examples:
  atp vm destroy node7/web-1
  atp vm destroy 'test-*' --state running --dry-run";

pub(crate) const VM_SUSPEND: &str = "\
Examples:
  atp vm suspend web-1
  atp vm suspend '@rack-2/' --yes";

pub(crate) const VM_RESUME: &str = "\
Examples:
  atp vm resume web-1
  atp vm resume '*' --state paused --wait";

pub(crate) const EXEC: &str = "\
Examples:
  atp exec 'web-*' -- systemctl is-active nginx
  atp exec 'node7/' --shell -- 'df -h | tail -n +2'";

pub(crate) const QMP: &str = "\
Examples:
  atp qmp web-1 -- query-status
  atp qmp 'web-*' -- human-monitor-command command-line='info block'";

pub(crate) const QGA: &str = "\
Examples:
  atp qga 'web-*' -- guest-get-osinfo
  atp qga web-1 -- guest-file-open path=/etc/hostname mode=r";

pub(crate) const CONFIG: &str = "\
Examples:
  atp config show
  atp --config ./atp.toml config check";

pub(crate) const CONFIG_SHOW: &str = "\
Examples:
  atp config show
  atp config show --timeout 5s -o json";

pub(crate) const CONFIG_CHECK: &str = "\
Examples:
  atp config check
  atp --config ./atp.toml config check";
