//! Allocation candidates through the API: the shapes by microversion, two worlds in which upstream's own tests count
//! candidates, and every refusal. The search itself is tested against a brute force in the model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
use common::{Cloud, LATEST, cloud, uuid};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names to ids.
type Ids = BTreeMap<String, String>;

/// Puts ids for `{name}`.
fn fill(ids: &Ids, text: &str) -> String {
    let mut text = text.to_owned();
    for (name, id) in ids {
        text = text.replace(&format!("{{{name}}}"), id);
    }
    assert!(!text.contains('{'), "{text} names something unknown");
    text
}

/// Name, parent, inventories, traits, aggregates.
type Provider<'a> = (&'a str, &'a str, Value, &'a [&'a str], &'a [&'a str]);

/// Makes providers; gives the ids of their names and of their aggregates'.
async fn build(c: &Cloud, world: &[Provider<'_>]) -> Ids {
    let mut ids = Ids::new();
    for (name, parent, inventories, traits, aggregates) in world {
        let above = ids.get(*parent).cloned();
        assert_eq!(above.is_some(), !parent.is_empty());
        let id = c.provider(name, above.as_deref()).await;
        for class in inventories
            .as_object()
            .unwrap()
            .keys()
            .filter(|k| k.starts_with("CUSTOM_"))
        {
            c.ask("PUT", &format!("/resource_classes/{class}")).send().await;
        }
        c.stock(&id, inventories.clone()).await;
        c.traits(&id, traits).await;
        let of: Vec<String> = aggregates
            .iter()
            .map(|a| ids.entry((*a).to_owned()).or_insert_with(uuid).clone())
            .collect();
        c.aggregates(&id, &of.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        ids.insert((*name).to_owned(), id);
    }
    ids
}

async fn ask(c: &Cloud, ids: &Ids, version: &str, query: &str) -> Value {
    c.get(&format!("/allocation_candidates?{}", fill(ids, query)))
        .at(version)
        .ok()
        .await
}

/// How many candidates, how many summaries.
fn sizes(answer: &Value) -> (usize, usize) {
    (
        answer["allocation_requests"].as_array().unwrap().len(),
        answer["provider_summaries"].as_object().unwrap().len(),
    )
}

/// What the candidates take, as `name:CLASS=n+CLASS=n name:...`, sorted.
fn taken(ids: &Ids, answer: &Value) -> Vec<String> {
    let name = |id: &str| ids.iter().find(|(_, i)| *i == id).unwrap().0.clone();
    let mut all: Vec<String> = answer["allocation_requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let mut parts: Vec<String> = r["allocations"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(id, of)| {
                    let units: Vec<String> = of["resources"]
                        .as_object()
                        .unwrap()
                        .iter()
                        .map(|(c, n)| format!("{c}={n}"))
                        .collect();
                    format!("{}:{}", name(id), units.join("+"))
                })
                .collect();
            parts.sort();
            parts.join(" ")
        })
        .collect();
    all.sort();
    all
}

/// Three nodes, two disks and a network that share.
async fn granular(c: &Cloud) -> Ids {
    let share = "MISC_SHARES_VIA_AGGREGATE";
    build(
        c,
        &[
            (
                "left",
                "",
                json!({"VCPU": {"total": 8}, "MEMORY_MB": {"total": 4096}, "DISK_GB": {"total": 500}, "VGPU": {"total": 8},
                    "SRIOV_NET_VF": {"total": 8}, "CUSTOM_NET_MBPS": {"total": 4000}}),
                &["HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "HW_GPU_API_DXVA", "HW_NIC_DCB_PFC", "CUSTOM_FOO"],
                &["aggA"],
            ),
            (
                "middle",
                "",
                json!({"VCPU": {"total": 8}, "MEMORY_MB": {"total": 4096}, "SRIOV_NET_VF": {"total": 8},
                    "CUSTOM_NET_MBPS": {"total": 4000}}),
                &["HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "HW_CPU_X86_SSE", "HW_NIC_ACCEL_TLS"],
                &["aggA", "aggB"],
            ),
            (
                "right",
                "",
                json!({"VCPU": {"total": 8}, "MEMORY_MB": {"total": 4096}, "DISK_GB": {"total": 500},
                    "VGPU": {"total": 8, "max_unit": 2}}),
                &["HW_CPU_X86_MMX", "HW_GPU_API_DXVA", "CUSTOM_DISK_SSD"],
                &["aggB", "aggC"],
            ),
            ("disk1", "", json!({"DISK_GB": {"total": 1000}}), &[share, "CUSTOM_DISK_SSD"], &["aggA"]),
            ("disk2", "", json!({"DISK_GB": {"total": 1000}}), &[share], &["aggA", "aggB"]),
            (
                "net",
                "",
                json!({"SRIOV_NET_VF": {"total": 16}, "CUSTOM_NET_MBPS": {"total": 40000}}),
                &[share],
                &["aggC"],
            ),
        ],
    )
    .await
}

#[tokio::test]
async fn granular_groups_and_sharing() {
    let c = cloud();
    let ids = granular(&c).await;
    for (query, want) in [
        ("resources1=VCPU:1&resources2=MEMORY_MB:1024&group_policy=none", (3, 3)),
        (
            "resources1=VCPU:1&resources2=MEMORY_MB:1024&group_policy=isolate",
            (0, 0),
        ),
        // Of a policy given twice the first counts.
        (
            "resources1=VCPU:1&resources2=MEMORY_MB:1024&group_policy=isolate&group_policy=none",
            (0, 0),
        ),
        (
            "resources=VCPU:3,MEMORY_MB:512&resources1=VCPU:1,MEMORY_MB:1024&resources2=VCPU:2&group_policy=none",
            (3, 3),
        ),
        ("resources=VCPU:1&resources1=MEMORY_MB:2048", (3, 3)),
        (
            "resources1=VCPU:1,MEMORY_MB:1024&resources2=DISK_GB:100&group_policy=isolate",
            (5, 5),
        ),
        (
            "resources1=VCPU:1,MEMORY_MB:1024&resources2=DISK_GB:100&group_policy=none",
            (7, 5),
        ),
        ("resources1=DISK_GB:800", (2, 2)),
        ("resources=DISK_GB:800", (2, 2)),
        (
            "resources1=VCPU:1,MEMORY_MB:1024&resources2=DISK_GB:100&required2=CUSTOM_DISK_SSD&group_policy=isolate",
            (2, 3),
        ),
        (
            "resources1=VCPU:1&resources2=DISK_GB:100&required2=!CUSTOM_DISK_SSD&group_policy=none",
            (4, 4),
        ),
        (
            "resources1=VCPU:1&resources2=DISK_GB:100&member_of2={aggC}&group_policy=none",
            (1, 1),
        ),
        (
            "resources1=VCPU:1&required1=!HW_CPU_X86_SSE&resources2=DISK_GB:100&required2=CUSTOM_DISK_SSD\
             &member_of2=in:{aggA},{aggC}&group_policy=none",
            (2, 3),
        ),
        (
            "resources1=VCPU:1&resources2=DISK_GB:100&member_of2={aggA}&member_of2=in:{aggB},{aggC}&group_policy=isolate",
            (3, 4),
        ),
        (
            "resources1=VCPU:1&resources2=VGPU:1&required2=HW_GPU_API_DXVA&resources3=MEMORY_MB:1024&resources4=DISK_GB:100\
             &required4=CUSTOM_DISK_SSD&resources5=DISK_GB:50&required5=!CUSTOM_DISK_SSD\
             &resources6=SRIOV_NET_VF:1,CUSTOM_NET_MBPS:1000&resources7=SRIOV_NET_VF:2,CUSTOM_NET_MBPS:2000&group_policy=none",
            (3, 5),
        ),
        (
            "resources=VCPU:2,MEMORY_MB:2048,SRIOV_NET_VF:1,CUSTOM_NET_MBPS:2000&resources1=SRIOV_NET_VF:1,CUSTOM_NET_MBPS:3000",
            (1, 2),
        ),
        (
            "resources=VGPU:1&resources1=VGPU:1&resources2=VGPU:1&group_policy=none",
            (1, 1),
        ),
        ("resources=VCPU:9", (0, 0)),
        ("resources=VCPU:1&member_of={aggC}", (1, 1)),
    ] {
        assert_eq!(sizes(&ask(&c, &ids, "1.25", query).await), want, "{query}");
    }
    let answer = ask(
        &c,
        &ids,
        "1.25",
        "resources=VCPU:2,MEMORY_MB:2048,SRIOV_NET_VF:1,CUSTOM_NET_MBPS:2000&resources1=SRIOV_NET_VF:1,CUSTOM_NET_MBPS:3000",
    )
    .await;
    assert_eq!(
        taken(&ids, &answer),
        ["net:CUSTOM_NET_MBPS=5000+SRIOV_NET_VF=2 right:MEMORY_MB=2048+VCPU=2"]
    );
    // Traits, from 1.39 on also one of several.
    assert_eq!(
        sizes(
            &ask(
                &c,
                &ids,
                "1.38",
                "required=CUSTOM_FOO&required=HW_CPU_X86_MMX&resources=VCPU:1"
            )
            .await
        )
        .0,
        1
    );
    assert_eq!(
        sizes(
            &ask(
                &c,
                &ids,
                LATEST,
                "required=CUSTOM_FOO&required=HW_CPU_X86_MMX&resources=VCPU:1"
            )
            .await
        )
        .0,
        0
    );
    assert_eq!(
        sizes(
            &ask(
                &c,
                &ids,
                LATEST,
                "required=in:CUSTOM_FOO,HW_CPU_X86_MMX&resources=VCPU:1"
            )
            .await
        )
        .0,
        2
    );
    assert_eq!(
        sizes(
            &ask(
                &c,
                &ids,
                LATEST,
                "requiredX=in:CUSTOM_FOO,HW_CPU_X86_MMX&requiredX=!CUSTOM_FOO&resourcesX=VCPU:1"
            )
            .await
        )
        .0,
        1
    );
    assert_eq!(
        sizes(&ask(&c, &ids, LATEST, "resources=VCPU:1&member_of=!{aggA}").await).0,
        1
    );
    assert_eq!(
        sizes(&ask(&c, &ids, LATEST, "resources=VCPU:1,DISK_GB:600&in_tree={left}").await).0,
        0
    );
    assert_eq!(
        sizes(
            &ask(
                &c,
                &ids,
                LATEST,
                "resources=VCPU:1&in_tree={left}&resources1=DISK_GB:600&in_tree1={disk2}"
            )
            .await
        )
        .0,
        1
    );
    // A tree that is not there serves nobody.
    let nowhere = format!("resources=VCPU:1&in_tree={}", uuid());
    assert_eq!(sizes(&ask(&c, &ids, LATEST, &nowhere).await), (0, 0));
}

/// A node with processors in two NUMA nodes and devices below them, and one with network devices in three subtrees.
async fn numa(c: &Cloud) -> Ids {
    let vf = |n: u32| json!({"CUSTOM_VF": {"total": n}});
    let none = json!({});
    let net = |n: u32| json!({"NET_BW_EGR_KILOBIT_PER_SEC": {"total": n}});
    let fpga = json!({"CUSTOM_FPGA": {"total": 1}});
    let ids = build(
        c,
        &[
            (
                "ss1",
                "",
                json!({"DISK_GB": {"total": 2000}}),
                &["MISC_SHARES_VIA_AGGREGATE"],
                &["aggA"],
            ),
            ("cn1", "", none.clone(), &["COMPUTE_VOLUME_MULTI_ATTACH"], &["aggA"]),
            (
                "numa0",
                "cn1",
                json!({"VCPU": {"total": 4}, "MEMORY_MB": {"total": 2048, "min_unit": 512, "step_size": 256}}),
                &["HW_NUMA_ROOT"],
                &[],
            ),
            (
                "numa1",
                "cn1",
                json!({"VCPU": {"total": 4}, "MEMORY_MB": {"total": 2048, "min_unit": 256, "max_unit": 1024}}),
                &["HW_NUMA_ROOT", "CUSTOM_FOO"],
                &[],
            ),
            ("fpga0", "numa0", fpga.clone(), &[], &[]),
            ("pgpu0", "numa0", json!({"VGPU": {"total": 8}}), &[], &[]),
            ("fpga1_0", "numa1", fpga.clone(), &[], &[]),
            ("fpga1_1", "numa1", fpga, &[], &[]),
            ("sriov", "cn1", none.clone(), &["CUSTOM_VNIC_TYPE_DIRECT"], &[]),
            ("esn1", "sriov", net(10_000), &["CUSTOM_PHYSNET1"], &[]),
            ("esn2", "sriov", net(20_000), &["CUSTOM_PHYSNET2"], &[]),
            ("ovs", "cn1", none.clone(), &["CUSTOM_VNIC_TYPE_NORMAL"], &[]),
            ("br_int", "ovs", net(1_000), &["CUSTOM_PHYSNET0"], &[]),
            (
                "cn2",
                "",
                json!({"VCPU": {"total": 8}, "DISK_GB": {"total": 1000},
                    "MEMORY_MB": {"total": 2048, "min_unit": 1024, "step_size": 128}}),
                &["CUSTOM_FOO"],
                &["aggA"],
            ),
            ("nic1", "cn2", none.clone(), &["CUSTOM_HW_NIC_ROOT"], &[]),
            ("nic2", "cn2", none.clone(), &["CUSTOM_HW_NIC_ROOT"], &[]),
            ("nic3", "cn2", none, &["CUSTOM_HW_NIC_ROOT"], &[]),
            ("pf1_1", "nic1", vf(4), &["CUSTOM_PHYSNET1"], &[]),
            ("pf1_2", "nic1", vf(4), &["CUSTOM_PHYSNET2"], &[]),
            ("pf2_1", "nic2", vf(2), &["CUSTOM_PHYSNET1"], &[]),
            ("pf2_2", "nic2", vf(2), &["CUSTOM_PHYSNET2"], &[]),
            ("pf2_3", "nic2", vf(2), &["CUSTOM_PHYSNET1"], &[]),
            ("pf2_4", "nic2", vf(2), &["CUSTOM_PHYSNET2"], &[]),
            ("pf3_1", "nic3", vf(8), &["CUSTOM_PHYSNET1"], &[]),
        ],
    )
    .await;
    c.allocate(&uuid(), json!({ids["numa0"].clone(): {"resources": {"VCPU": 2}}}))
        .want(204)
        .await;
    c.allocate(&uuid(), json!({ids["cn2"].clone(): {"resources": {"VCPU": 3}}}))
        .want(204)
        .await;
    ids
}

#[tokio::test]
async fn nested_providers_and_subtrees() {
    let c = cloud();
    let ids = numa(&c).await;
    let ports = "resources=VCPU:1&required_NIC=CUSTOM_HW_NIC_ROOT&required_PORT1=CUSTOM_PHYSNET1";
    for (query, want) in [
        ("resources_COMPUTE=VCPU:1&resources_ACCEL=CUSTOM_FPGA:1&group_policy=none".to_owned(), 6),
        ("resources_COMPUTE=VCPU:1&resources_ACCEL=CUSTOM_FPGA:1&same_subtree=_COMPUTE&group_policy=none".to_owned(), 6),
        ("resources_COMPUTE=VCPU:1&resources_ACCEL=CUSTOM_FPGA:1&same_subtree=_COMPUTE,_ACCEL&group_policy=none".to_owned(), 3),
        ("resources_C1=VCPU:1&resources_C2=MEMORY_MB:1024&same_subtree=_C1,_C2&group_policy=none".to_owned(), 3),
        ("resources_C1=VCPU:1&resources_C2=MEMORY_MB:1024&same_subtree=_C1,_C2&group_policy=isolate".to_owned(), 0),
        (
            "resources=VCPU:1&resources_PORT1=CUSTOM_VF:4&required_PORT1=CUSTOM_PHYSNET1&resources_PORT2=CUSTOM_VF:4\
             &required_PORT2=CUSTOM_PHYSNET2&group_policy=none"
                .to_owned(),
            2,
        ),
        (
            format!(
                "{ports}&resources_PORT1=CUSTOM_VF:4&resources_PORT2=CUSTOM_VF:4&required_PORT2=CUSTOM_PHYSNET2\
                 &same_subtree=_NIC,_PORT1,_PORT2&group_policy=none"
            ),
            1,
        ),
        (
            format!(
                "{ports}&resources_PORT1=CUSTOM_VF:2&resources_PORT2=CUSTOM_VF:2&required_PORT2=CUSTOM_PHYSNET2\
                 &same_subtree=_NIC,_PORT1,_PORT2&group_policy=isolate"
            ),
            5,
        ),
        (
            format!(
                "{ports}&resources_PORT1=CUSTOM_VF:2&resources_PORT2A=CUSTOM_VF:1&required_PORT2A=CUSTOM_PHYSNET2\
                 &resources_PORT2B=CUSTOM_VF:1&required_PORT2B=CUSTOM_PHYSNET2\
                 &same_subtree=_NIC,_PORT1,_PORT2A,_PORT2B&group_policy=none"
            ),
            9,
        ),
        (
            format!(
                "{ports}&resources_PORT1=CUSTOM_VF:2&resources_PORT2A=CUSTOM_VF:1&required_PORT2A=CUSTOM_PHYSNET2\
                 &resources_PORT2B=CUSTOM_VF:1&required_PORT2B=CUSTOM_PHYSNET2\
                 &same_subtree=_NIC,_PORT1,_PORT2A,_PORT2B&group_policy=isolate"
            ),
            4,
        ),
        ("resources_P1=CUSTOM_VF:8&required_P2=CUSTOM_PHYSNET1&same_subtree=_P1,_P2&group_policy=none".to_owned(), 1),
        ("resources_P1=CUSTOM_VF:8&required_P2=CUSTOM_PHYSNET1&same_subtree=_P1,_P2&group_policy=isolate".to_owned(), 0),
        (
            "resources_C1=VCPU:1&required_C2=CUSTOM_FOO&required_C3=HW_NUMA_ROOT&same_subtree=_C1,_C2,_C3&group_policy=none"
                .to_owned(),
            1,
        ),
        (
            "required_NUMA=HW_NUMA_ROOT&resources_A1=CUSTOM_FPGA:1&resources_A2=CUSTOM_FPGA:1\
             &same_subtree=_NUMA,_A1,_A2,_NUMA,_A1&group_policy=isolate"
                .to_owned(),
            2,
        ),
        (
            "required_NUMA=HW_NUMA_ROOT,!CUSTOM_FOO&resources_A1=CUSTOM_FPGA:1&resources_A2=CUSTOM_FPGA:1\
             &same_subtree=_NUMA,_A1,_A2&group_policy=isolate"
                .to_owned(),
            0,
        ),
        // The root of the anchor.
        ("resources=VCPU:1&root_required=HW_NUMA_ROOT".to_owned(), 0),
        ("resources=VCPU:1,MEMORY_MB:1024,DISK_GB:100&root_required=MISC_SHARES_VIA_AGGREGATE".to_owned(), 0),
        ("resources=VCPU:1,MEMORY_MB:1024&root_required=COMPUTE_VOLUME_MULTI_ATTACH".to_owned(), 4),
        ("resources1=VCPU:1&resources2=MEMORY_MB:1024&group_policy=isolate&root_required=COMPUTE_VOLUME_MULTI_ATTACH".to_owned(), 2),
        ("resources=VCPU:1,MEMORY_MB:1024,DISK_GB:100&root_required=COMPUTE_VOLUME_MULTI_ATTACH".to_owned(), 4),
        (
            "resources1=VCPU:1,MEMORY_MB:1024&resources2=DISK_GB:100&group_policy=none&root_required=COMPUTE_VOLUME_MULTI_ATTACH"
                .to_owned(),
            2,
        ),
        ("resources=VCPU:1,DISK_GB:100&required=CUSTOM_FOO".to_owned(), 3),
        ("resources=VCPU:1,DISK_GB:100&root_required=CUSTOM_FOO".to_owned(), 2),
        ("resources1=VCPU:1&required1=CUSTOM_FOO&resources2=DISK_GB:100&group_policy=none".to_owned(), 3),
        ("resources=VCPU:3&root_required=!HW_NUMA_ROOT".to_owned(), 2),
        ("resources=VCPU:1,MEMORY_MB:1024,DISK_GB:100&root_required=!MISC_SHARES_VIA_AGGREGATE".to_owned(), 6),
        ("resources=VCPU:1,MEMORY_MB:1024,DISK_GB:100&root_required=CUSTOM_FOO,!HW_NUMA_ROOT".to_owned(), 2),
        ("resources=VCPU:1,MEMORY_MB:1024,DISK_GB:100&root_required=!CUSTOM_FOO,!COMPUTE_VOLUME_MULTI_ATTACH".to_owned(), 0),
        ("resources1=VCPU:1&required1=CUSTOM_FOO&root_required=!CUSTOM_FOO".to_owned(), 1),
        ("resources1=VCPU:1&required1=!CUSTOM_FOO&root_required=CUSTOM_FOO".to_owned(), 0),
    ] {
        let answer = ask(&c, &ids, "1.36", &query).await;
        assert_eq!(sizes(&answer).0, want, "{query}: {:#?}", taken(&ids, &answer));
    }
    // Compute and devices of one NUMA node, bandwidth under one agent: there is one way.
    let answer = ask(
        &c,
        &ids,
        "1.36",
        "required_NUMA=HW_NUMA_ROOT&resources_COMPUTE=VCPU:2,MEMORY_MB:512&resources_FPGA=CUSTOM_FPGA:1&resources_GPU=VGPU:1\
         &required_SRIOV=CUSTOM_VNIC_TYPE_DIRECT&resources_NET1=NET_BW_EGR_KILOBIT_PER_SEC:100&required_NET1=CUSTOM_PHYSNET1\
         &resources_NET2=NET_BW_EGR_KILOBIT_PER_SEC:100&required_NET2=CUSTOM_PHYSNET2\
         &same_subtree=_NUMA,_COMPUTE,_GPU,_FPGA&same_subtree=_SRIOV,_NET1,_NET2&group_policy=none",
    )
    .await;
    assert_eq!(sizes(&answer).0, 1);
    let mappings = &answer["allocation_requests"][0]["mappings"];
    for (suffix, name) in [
        ("_NUMA", "numa0"),
        ("_COMPUTE", "numa0"),
        ("_FPGA", "fpga0"),
        ("_GPU", "pgpu0"),
        ("_SRIOV", "sriov"),
        ("_NET1", "esn1"),
        ("_NET2", "esn2"),
    ] {
        assert_eq!(mappings[suffix], json!([ids[name]]), "{suffix}");
    }
    assert!(
        answer["allocation_requests"][0]["allocations"]
            .get(ids["sriov"].as_str())
            .is_none()
    );
    // A candidate can be taken as it is, with its mappings.
    let mut claim = answer["allocation_requests"][0].clone();
    for (key, value) in [
        ("project_id", json!("p")),
        ("user_id", json!("u")),
        ("consumer_generation", Value::Null),
    ] {
        claim[key] = value;
    }
    c.put(&format!("/allocations/{}", uuid()), claim.clone())
        .at("1.33")
        .refused(400, "'mappings' was unexpected")
        .await;
    c.put(&format!("/allocations/{}", uuid()), claim)
        .at("1.36")
        .want(204)
        .await;
    c.audit();
    // Who cannot know of trees gets nothing that needs two providers of one.
    assert_eq!(
        sizes(&ask(&c, &ids, "1.28", "resources=VCPU:1,MEMORY_MB:1024").await).0,
        2
    );
    assert_eq!(
        sizes(&ask(&c, &ids, "1.29", "resources=VCPU:1,MEMORY_MB:1024").await).0,
        3
    );
}

#[tokio::test]
async fn shapes_by_microversion() {
    let c = cloud();
    let ids = numa(&c).await;
    let query = "resources=VCPU:1,DISK_GB:100";
    c.get("/allocation_candidates?resources=VCPU:1")
        .at("1.9")
        .want(404)
        .await;
    let answer = ask(&c, &ids, "1.10", query).await;
    // numa0, numa1 and cn2 each with the shared disk; cn2 with its own.
    assert_eq!(sizes(&answer).0, 4);
    let request = &answer["allocation_requests"][0]["allocations"];
    assert!(request[0]["resource_provider"]["uuid"].is_string() && request[0]["resources"].is_object());
    assert_eq!(answer["allocation_requests"][0].get("mappings"), None);
    let summary = |answer: &Value, name: &str| answer["provider_summaries"][&ids[name]].clone();
    assert_eq!(
        summary(&answer, "cn2"),
        json!({"resources": {"VCPU": {"capacity": 8, "used": 3}, "DISK_GB": {"capacity": 1000, "used": 0}}})
    );
    // Only what is taken from, for who cannot know of trees.
    assert_eq!(sizes(&answer).1, 4);
    let answer = ask(&c, &ids, "1.12", query).await;
    assert!(answer["allocation_requests"][0]["allocations"].is_object());
    let answer = ask(&c, &ids, "1.17", query).await;
    assert_eq!(
        summary(&answer, "numa1")["traits"],
        json!(["CUSTOM_FOO", "HW_NUMA_ROOT"])
    );
    let answer = ask(&c, &ids, "1.27", query).await;
    assert_eq!(
        summary(&answer, "cn2")["resources"]["MEMORY_MB"],
        json!({"capacity": 2048, "used": 0})
    );
    assert_eq!(summary(&answer, "cn2").get("root_provider_uuid"), None);
    let answer = ask(&c, &ids, "1.29", query).await;
    assert_eq!(sizes(&answer).1, ids.len() - 1);
    assert_eq!(summary(&answer, "fpga0")["parent_provider_uuid"], ids["numa0"].as_str());
    assert_eq!(summary(&answer, "fpga0")["root_provider_uuid"], ids["cn1"].as_str());
    assert_eq!(summary(&answer, "cn1")["parent_provider_uuid"], Value::Null);
    assert_eq!(summary(&answer, "cn1")["resources"], json!({}));
    assert_eq!(answer["allocation_requests"][0].get("mappings"), None);
    let answer = ask(&c, &ids, "1.34", query).await;
    assert!(answer["allocation_requests"][0]["mappings"][""].is_array());
    for limit in 1..4 {
        let answer = ask(&c, &ids, LATEST, &format!("{query}&limit={limit}")).await;
        assert_eq!(sizes(&answer).0, limit);
    }
    let headers = c
        .get("/allocation_candidates?resources=VCPU:1")
        .at("1.15")
        .want(200)
        .await;
    assert_eq!(headers.header("cache-control"), "no-cache");
    let headers = c
        .get("/allocation_candidates?resources=VCPU:1")
        .at("1.14")
        .want(200)
        .await;
    assert_eq!(headers.header("last-modified"), "");
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let c = cloud();
    c.traits(&c.provider("one", None).await, &["CUSTOM_FOO"]).await;
    let u = uuid();
    let long = format!("resources_{}=VCPU:1", "x".repeat(64));
    for (query, version, part) in [
        ("", "1.10", "'resources' is a required property"),
        ("resources=", "1.10", "empty string"),
        ("resources=MCPU:99", "1.10", "No such resource class MCPU"),
        ("resources=VCPU:1&limit=5", "1.15", "'limit' was unexpected"),
        ("resources=VCPU:1&limit=cow", "1.16", "limit"),
        ("resources=VCPU:1&limit=-99", "1.16", "limit"),
        ("resources=VCPU:1&limit=0", "1.16", "limit"),
        ("resources=VCPU:1&limit=99999999999999999999999", "1.16", "limit"),
        (
            "resources=VCPU:1&required=HW_CPU_X86_SSE",
            "1.16",
            "'required' was unexpected",
        ),
        (
            "resources=VCPU:1&required=INVALID_TRAIT",
            "1.17",
            "No such trait(s): INVALID_TRAIT",
        ),
        ("resources=VCPU:1&required=", "1.17", "empty trait"),
        ("resources=VCPU:1&required=,,", "1.22", "empty trait"),
        ("resources=VCPU:1&required=!CUSTOM_FOO", "1.21", "required"),
        (
            "resources=VCPU:1&required=CUSTOM_FOO,!CUSTOM_FOO",
            "1.22",
            "Conflicting required and forbidden",
        ),
        (
            &format!("resources=VCPU:1&member_of={u}"),
            "1.20",
            "'member_of' was unexpected",
        ),
        (
            &format!("resources=VCPU:1&member_of={u}&member_of={u}"),
            "1.23",
            "Multiple member_of",
        ),
        (&format!("resources=VCPU:1&member_of=!{u}"), "1.31", "1.32"),
        (
            "resources=MEMORY_MB:1024&resources1=VCPU:1",
            "1.24",
            "'resources1' was unexpected",
        ),
        (
            "resources=VCPU:1&group_policy=isolate",
            "1.24",
            "'group_policy' was unexpected",
        ),
        ("resources01=VCPU:1", "1.25", "'resources01' was unexpected"),
        ("resources1a=VCPU:1", "1.25", "'resources1a' was unexpected"),
        ("resources=VCPU:1&group_policy=bogus", "1.25", "'bogus' is not one of"),
        (
            "resources1=VCPU:1&resources2=VCPU:1",
            "1.25",
            "\"group_policy\" parameter is required",
        ),
        ("required=FOO&required1=BAR", "1.25", "orphaned key: required"),
        (
            &format!("member_of={u}&member_of3={u}"),
            "1.25",
            "orphaned key: member_of",
        ),
        ("group_policy=isolate", "1.25", "At least one request group"),
        (
            &format!("resources=VCPU:1&in_tree={u}"),
            "1.30",
            "'in_tree' was unexpected",
        ),
        ("resources=VCPU:1&in_tree=pony", "1.31", "in_tree"),
        ("resources_A=VCPU:1", "1.32", "'resources_A' was unexpected"),
        (long.as_str(), LATEST, "was unexpected"),
        ("resources$=VCPU:1", LATEST, "'resources$' was unexpected"),
        (
            "resources=VCPU:1&root_required=CUSTOM_FOO",
            "1.34",
            "'root_required' was unexpected",
        ),
        (
            "resources=VCPU:1&root_required=CUSTOM_FOO,!CUSTOM_FOO",
            "1.35",
            "found in root_required: CUSTOM_FOO",
        ),
        (
            "resources=VCPU:1&root_required=CUSTOM_NO_EXIST",
            "1.35",
            "No such trait(s): CUSTOM_NO_EXIST",
        ),
        (
            "resources=VCPU:1&root_required=!CUSTOM_NO_EXIST",
            "1.35",
            "No such trait(s): CUSTOM_NO_EXIST",
        ),
        (
            "resources=VCPU:1&root_required=CUSTOM_FOO&root_required=!HW_NUMA_ROOT",
            "1.35",
            "only once",
        ),
        ("resources=VCPU:1&root_required=in:CUSTOM_FOO", LATEST, "root_required"),
        (
            "resources_A=VCPU:1&same_subtree=_A",
            "1.35",
            "'same_subtree' was unexpected",
        ),
        (
            "resources1=VCPU:1&required2=HW_NUMA_ROOT&group_policy=none",
            "1.36",
            "Resourceless suffixed group",
        ),
        (
            &format!("resources1=VCPU:1&member_of2={u}&group_policy=none"),
            "1.36",
            "Resourceless suffixed group",
        ),
        (
            &format!("member_of1={u}&group_policy=none"),
            "1.36",
            "There must be at least one resources",
        ),
        (
            "resources_A=VCPU:1&resources_B=VGPU:1&same_subtree=A,_B&group_policy=none",
            "1.36",
            "Real suffixes",
        ),
        (
            "resources_A=VCPU:1&resources_B=VGPU:1&same_subtree=_A,,_B&group_policy=none",
            "1.36",
            "Empty string",
        ),
        ("spam=eggs&resources=VCPU:1", LATEST, "'spam' was unexpected"),
    ] {
        c.get(&format!("/allocation_candidates?{query}"))
            .at(version)
            .refused(400, part)
            .await;
    }
    for (query, code) in [
        (
            "resources=VCPU:1&root_required=CUSTOM_FOO&root_required=CUSTOM_FOO",
            "placement.query.duplicate_key",
        ),
        (
            "resources=VCPU:1&root_required=CUSTOM_FOO,!CUSTOM_FOO",
            "placement.query.bad_value",
        ),
        ("resources_A=VCPU:1&same_subtree=A", "placement.query.bad_value"),
        ("required_A=CUSTOM_FOO&same_subtree=_A", "placement.query.missing_value"),
        ("resources=PONY:1", "placement.undefined_code"),
    ] {
        let got = c.get(&format!("/allocation_candidates?{query}")).refused(400, "").await;
        assert_eq!(got, code, "{query}");
    }
}
