#![allow(clippy::unwrap_used)]
use super::*;
use crate::Nic;
use maru_agent_api::slice::{Disk, DiskSource, Network, Port, Power, Reboot, Server, Subnet};
use proptest::prelude::*;

pub(crate) fn guest() -> GuestView {
    let network = Network {
        id: "net-1".into(),
        vni: 1,
        zone: 1,
        mtu: 1450,
        external: false,
        admin_up: true,
        subnets: vec![Subnet {
            id: "sub".into(),
            cidr: "10.0.0.0/24".parse().unwrap(),
            gateway: Some("10.0.0.1".parse().unwrap()),
            dhcp: true,
            dns: vec!["8.8.8.8".parse().unwrap()],
            routes: vec![("10.9.0.0/16".parse().unwrap(), "10.0.0.7".parse().unwrap())],
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            dhcp_address: Some("10.0.0.2".parse().unwrap()),
        }],
    };
    let port = Port {
        id: "0123456789abcdef".into(),
        network_id: "net-1".into(),
        project_id: "proj".into(),
        host: None,
        device_id: "srv".into(),
        device_owner: "compute:nova".into(),
        mac: "fa:16:3e:00:00:05".into(),
        fixed_ips: vec![("sub".into(), "10.0.0.5".parse().unwrap())],
        allowed_address_pairs: vec![],
        security_groups: vec![],
        port_security: true,
        admin_up: true,
        extra_dhcp_opts: vec![],
        dns_name: String::new(),
        qos: maru_agent_api::slice::PortQos::default(),
        trunk: None,
    };
    let server = Server {
        id: "8f2c1c1e-7d0a-4f7b-9b60-0b3a7cf9a001".into(),
        project_id: "proj".into(),
        user_id: "user".into(),
        name: "Web 1".into(),
        hostname: "web-1".into(),
        request_id: "req-1".into(),
        vcpus: 1,
        memory_mib: 128,
        disks: vec![Disk {
            name: "root".into(),
            source: DiskSource::Image {
                image_id: "abcdef01-2".into(),
                digest: "d".into(),
                format: "qcow2".into(),
            },
            size: 0,
            bus: "virtio".into(),
            device: "disk".into(),
        }],
        ports: vec!["0123456789abcdef".into()],
        power: Power::Running,
        reboot: Reboot::default(),
        rebuild: 0,
        resize: maru_agent_api::slice::Resize::default(),
        config_drive: false,
        metadata: GuestMetadata {
            public_keys: vec![("mykey".into(), "ssh-rsa AAAA me".into())],
            meta: [("role".to_owned(), "db".to_owned())].into(),
            user_data: Some("aGVsbG8=".into()),
            availability_zone: "nova".into(),
            launch_index: 0,
            admin_pass: None,
            instance_type: "m1.tiny".into(),
            security_groups: vec!["default".into(), "web".into()],
            files: vec![("/etc/motd".into(), "aGk=".into())],
        },
        stop_timeout: 60,
        origin: String::new(),
    };
    GuestView {
        server,
        nics: vec![Nic { port, network }],
        floating: vec!["203.0.113.9".parse().unwrap()],
    }
}

fn get(path: &str) -> Answer {
    respond(&Method::Read, path, &guest(), &[7; 512], None)
}

fn text(path: &str) -> String {
    let answer = get(path);
    assert_eq!(answer.status, 200, "{path}");
    String::from_utf8(answer.body).unwrap()
}

fn json_of(path: &str) -> Value {
    let answer = get(path);
    assert_eq!((answer.status, answer.kind), (200, JSON), "{path}");
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn openstack_paths() {
    assert!(text("/openstack").starts_with("2012-08-10\n2013-04-04\n") && text("/openstack/").ends_with("\nlatest"));
    assert_eq!(
        text("/openstack/latest/"),
        "meta_data.json\nuser_data\npassword\nvendor_data.json\nnetwork_data.json\nvendor_data2.json"
    );
    assert_eq!(text("/openstack/2012-08-10"), "meta_data.json\nuser_data");
    assert_eq!(text("/openstack/latest/user_data"), "hello");
    assert_eq!(json_of("/openstack/latest/vendor_data.json"), json!({}));
    assert_eq!(text("/openstack/content/0000"), "hi");
    assert_eq!(text("/openstack/latest/password"), "");
    for missing in [
        "/openstack/2012-08-10/password",
        "/openstack/2013-10-17/network_data.json",
        "/openstack/1999-01-01/meta_data.json",
        "/openstack/content",
        "/openstack/content/0001",
        "/openstack/latest/nothing",
        "/openstack/latest/meta_data.json/x",
    ] {
        assert_eq!(get(missing).status, 404, "{missing}");
    }
}

#[test]
fn meta_data_says_what_upstream_says() {
    let doc = json_of("/openstack/latest/meta_data.json");
    let expected = json!({
        "uuid": "8f2c1c1e-7d0a-4f7b-9b60-0b3a7cf9a001",
        "meta": { "role": "db" },
        "files": [{ "path": "/etc/motd", "content_path": "/content/0000" }],
        "public_keys": { "mykey": "ssh-rsa AAAA me" },
        "keys": [{ "name": "mykey", "type": "ssh", "data": "ssh-rsa AAAA me" }],
        "hostname": "web-1.novalocal",
        "name": "Web 1",
        "launch_index": 0,
        "availability_zone": "nova",
        "random_seed": encode64(&[7; 512]),
        "project_id": "proj",
        "devices": [],
        "dedicated_cpus": [],
    });
    assert_eq!(doc, expected);
    let old = json_of("/openstack/2012-08-10/meta_data.json");
    assert!(old.get("random_seed").is_none() && old.get("project_id").is_none());
}

#[test]
fn network_data_describes_dhcp_and_fixed_networks() {
    let doc = json_of("/openstack/latest/network_data.json");
    assert_eq!(doc["links"][0]["id"], "tap0123456789a");
    assert_eq!(doc["links"][0]["ethernet_mac_address"], "fa:16:3e:00:00:05");
    let dhcp = json!({ "id": "network0", "type": "ipv4_dhcp", "link": "tap0123456789a", "network_id": "net-1" });
    assert_eq!(doc["networks"], json!([dhcp]));
    assert_eq!(doc["services"], json!([{ "type": "dns", "address": "8.8.8.8" }]));
    let mut guest = guest();
    guest.nics[0].network.subnets[0].dhcp = false;
    let doc = crate::netdata::network_data(&guest);
    assert_eq!(
        doc["networks"][0]["routes"],
        json!([
            { "network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1" },
            { "network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.0.0.7" },
        ])
    );
    assert_eq!(doc["networks"][0]["ip_address"], "10.0.0.5");
}

#[test]
fn ec2_paths() {
    assert!(text("/").starts_with("1.0\n2007-01-19") && text("/ec2").ends_with("latest"));
    assert_eq!(text("/latest"), "meta-data/\nuser-data");
    assert_eq!(text("/2009-04-04/user-data"), "hello");
    let listing = text("/latest/meta-data/");
    assert_eq!(
        listing,
        "ami-id\nami-launch-index\nami-manifest-path\nblock-device-mapping/\nhostname\ninstance-action\ninstance-id\n\
         instance-type\nlocal-hostname\nlocal-ipv4\nplacement/\npublic-hostname\npublic-ipv4\npublic-keys/\n\
         reservation-id\nsecurity-groups"
    );
    assert_eq!(text("/latest/meta-data/public-keys/"), "0=mykey");
    assert_eq!(text("/latest/meta-data/public-keys/0/"), "openssh-key");
    assert_eq!(text("/latest/meta-data/public-keys/0/openssh-key"), "ssh-rsa AAAA me");
    assert_eq!(text("/2009-04-04/meta-data/instance-id"), "i-8f2c1c1e");
    assert_eq!(text("/latest/meta-data/local-ipv4"), "10.0.0.5");
    assert_eq!(text("/latest/meta-data/public-ipv4"), "203.0.113.9");
    assert_eq!(text("/latest/meta-data/security-groups"), "default\nweb");
    assert_eq!(text("/latest/meta-data/placement/availability-zone"), "nova");
    assert!(!text("/1.0/meta-data").contains("instance-type"));
    for missing in [
        "/latest/nothing",
        "/2030-01-01/meta-data",
        "/latest/meta-data/public-keys/0/_name",
        "/latest/meta-data/x/y",
    ] {
        assert_eq!(get(missing).status, 404, "{missing}");
    }
}

#[test]
fn the_password_is_posted_once() {
    let post = |body: &[u8], old: Option<&[u8]>| {
        respond(
            &Method::Post(body.to_vec()),
            "/openstack/latest/password",
            &guest(),
            &[],
            old,
        )
    };
    assert_eq!(post(b"secret", None).password, Some(b"secret".to_vec()));
    assert_eq!(post(b"other", Some(b"secret")).status, 409);
    assert_eq!(post(&[b'x'; 1021], None).status, 400);
    let read = respond(
        &Method::Read,
        "/openstack/2013-04-04/password",
        &guest(),
        &[],
        Some(b"secret"),
    );
    assert_eq!(read.body, b"secret");
    assert_eq!(
        respond(
            &Method::Post(vec![]),
            "/openstack/latest/user_data",
            &guest(),
            &[],
            None
        )
        .status,
        405
    );
    assert_eq!(respond(&Method::Other, "/openstack", &guest(), &[], None).status, 405);
}

proptest! {
    #[test]
    fn any_path_is_survived(path in "[/a-z0-9%.?_-]{0,60}") {
        let answer = get(&path);
        prop_assert!([200, 404].contains(&answer.status));
    }

    #[test]
    fn base64_round_trips(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(decode64(&encode64(&bytes)), Some(bytes));
    }
}
