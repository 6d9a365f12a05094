//! Policy rules, by upstream's names, with the secure role-based defaults.

use maru_auth::RuleDefault;

macro_rules! rules {
    ($($name:literal => $check:expr),* $(,)?) => {
        &[$(RuleDefault { name: $name, check: $check }),*]
    };
}

const ADMIN_OR_SERVICE: &str = "role:admin or role:service";
const SERVICE: &str = "role:service";
const ADMIN_OR_PROJECT_READER_OR_SERVICE: &str =
    "role:admin or role:service or (role:reader and project_id:%(project_id)s)";

/// The rules of the placement service.
pub const POLICY: &[RuleDefault] = rules! {
    "placement:resource_providers:list" => ADMIN_OR_SERVICE,
    "placement:resource_providers:create" => ADMIN_OR_SERVICE,
    "placement:resource_providers:show" => ADMIN_OR_SERVICE,
    "placement:resource_providers:update" => ADMIN_OR_SERVICE,
    "placement:resource_providers:delete" => ADMIN_OR_SERVICE,
    "placement:resource_classes:list" => ADMIN_OR_SERVICE,
    "placement:resource_classes:create" => ADMIN_OR_SERVICE,
    "placement:resource_classes:show" => ADMIN_OR_SERVICE,
    "placement:resource_classes:update" => ADMIN_OR_SERVICE,
    "placement:resource_classes:delete" => ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:list" => ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:create" => ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:show" => ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:update" => ADMIN_OR_SERVICE,
    "placement:resource_providers:inventories:delete" => ADMIN_OR_SERVICE,
    "placement:resource_providers:aggregates:list" => ADMIN_OR_SERVICE,
    "placement:resource_providers:aggregates:update" => ADMIN_OR_SERVICE,
    "placement:resource_providers:usages" => ADMIN_OR_SERVICE,
    "placement:usages" => ADMIN_OR_PROJECT_READER_OR_SERVICE,
    "placement:traits:list" => ADMIN_OR_SERVICE,
    "placement:traits:show" => ADMIN_OR_SERVICE,
    "placement:traits:update" => ADMIN_OR_SERVICE,
    "placement:traits:delete" => ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:list" => ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:update" => ADMIN_OR_SERVICE,
    "placement:resource_providers:traits:delete" => ADMIN_OR_SERVICE,
    "placement:allocations:manage" => ADMIN_OR_SERVICE,
    "placement:allocations:list" => ADMIN_OR_SERVICE,
    "placement:allocations:update" => ADMIN_OR_SERVICE,
    "placement:allocations:delete" => ADMIN_OR_SERVICE,
    "placement:resource_providers:allocations:list" => ADMIN_OR_SERVICE,
    "placement:allocation_candidates:list" => ADMIN_OR_SERVICE,
    "placement:reshaper:reshape" => SERVICE,
};
