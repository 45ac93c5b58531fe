//! Which controller a host belongs to, if it lives: rendezvous hashing.

/// The controller that a host belongs to: of all of them the one whose hash with the host is the highest. When a controller
/// comes, it gets its share of the hosts of each other; when one goes, only its hosts change.
pub fn owner<'a>(host: &str, controllers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    controllers.into_iter().max_by_key(|controller| (hash(controller, host), *controller))
}

/// FNV-1a, and then mixed, as it spreads the last bytes little.
fn hash(controller: &str, host: &str) -> u64 {
    let bytes = controller.bytes().chain([0]).chain(host.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_spread_evenly_and_a_controller_that_goes_moves_only_its_own() {
        let hosts: Vec<_> = (0..3000).map(|n| format!("host-{n}")).collect();
        let (four, three) = (["a", "b", "c", "d"], ["a", "b", "c"]);
        for controller in four {
            let share = hosts.iter().filter(|host| owner(host, four) == Some(controller)).count();
            assert!((600..900).contains(&share), "{controller} has {share}");
        }
        for host in &hosts {
            let (before, after) = (owner(host, four).unwrap(), owner(host, three).unwrap());
            assert!(before == after || before == "d");
        }
        assert_eq!(owner("h", []), None);
    }
}
