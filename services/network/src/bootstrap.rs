//! The external network that `maru up` makes.

use ipnet::IpNet;
use maru_base::{ProjectId, Result};
use maru_network_model::{
    Network, NetworkId, NetworkRequest, Subnet, SubnetRequest, plan_create_network, plan_create_subnets,
};
use maru_store::{Key, Store};
use std::net::IpAddr;

const CLAIM: &str = "bootstrap-network";

/// Makes the external network `public` with its subnet `public-subnet`, once: later calls give the same network, whatever it
/// is named by then. `pool` is the first and last floating address.
///
/// # Errors
/// When the addresses contradict each other, or the store cannot be written.
pub async fn bootstrap(
    store: &Store,
    project: &ProjectId,
    cidr: IpNet,
    gateway: IpAddr,
    pool: (IpAddr, IpAddr),
) -> Result<NetworkId> {
    store
        .plan(|snapshot| {
            let mut txn = maru_store::Txn::new();
            if let Some(id) = snapshot.owner(CLAIM, "", "public") {
                let id = NetworkId::from(id);
                if snapshot.get::<Network>(&id).is_some() {
                    return Ok((txn, id));
                }
                // It was deleted: make it anew under the same claim.
                if let Some((revision, _)) = snapshot.raw(&Key::of(&["uniq", CLAIM, "", "public"])) {
                    txn.guard(maru_store::Guard::At(Key::of(&["uniq", CLAIM, "", "public"]), revision));
                }
            } else {
                txn.guard(maru_store::Guard::Absent(Key::of(&["uniq", CLAIM, "", "public"])));
            }
            let mut request = NetworkRequest::new(project.clone(), "public");
            request.external = true;
            request.is_default = true;
            request.network_type = Some("flat".to_owned());
            request.physical_network = Some("public".to_owned());
            let (id, _) = plan_create_network(snapshot, &mut txn, request)?;
            let mut subnet = SubnetRequest::new(project.clone(), id.clone(), cidr);
            subnet.name = "public-subnet".to_owned();
            subnet.gateway_ip = Some(Some(gateway));
            subnet.enable_dhcp = false;
            subnet.pools = Some(vec![pool]);
            let _made: Vec<(_, Subnet)> = plan_create_subnets(snapshot, &mut txn, vec![subnet])?;
            txn.op(maru_store::Op::Put(
                Key::of(&["uniq", CLAIM, "", "public"]),
                bytes::Bytes::copy_from_slice(id.as_str().as_bytes()),
            ));
            Ok((txn, id))
        })
        .await
}
