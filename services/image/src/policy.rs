//! The rules of the image service, by upstream's names, with the secure-RBAC defaults.

use maru_auth::RuleDefault;

const OWNER: &str = "role:admin or (role:member and project_id:%(project_id)s)";
const VISIBLE: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s or \
                       'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const READER: &str = "role:admin or (role:reader and project_id:%(project_id)s)";
const MEMBERS: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))";

const ADMIN: &str = "role:admin";
const METADEF: &str = "role:admin or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))";

/// All rules.
pub const POLICY: &[RuleDefault] = &[
    RuleDefault {
        name: "add_image",
        check: OWNER,
    },
    RuleDefault {
        name: "delete_image",
        check: OWNER,
    },
    RuleDefault {
        name: "get_image",
        check: VISIBLE,
    },
    RuleDefault {
        name: "get_images",
        check: READER,
    },
    RuleDefault {
        name: "modify_image",
        check: OWNER,
    },
    RuleDefault {
        name: "publicize_image",
        check: "role:admin",
    },
    RuleDefault {
        name: "communitize_image",
        check: OWNER,
    },
    RuleDefault {
        name: "download_image",
        check: "role:admin or (role:member and (project_id:%(project_id)s or project_id:%(member_id)s or \
                'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))",
    },
    RuleDefault {
        name: "upload_image",
        check: OWNER,
    },
    RuleDefault {
        name: "add_member",
        check: OWNER,
    },
    RuleDefault {
        name: "delete_member",
        check: OWNER,
    },
    RuleDefault {
        name: "get_member",
        check: MEMBERS,
    },
    RuleDefault {
        name: "get_members",
        check: MEMBERS,
    },
    RuleDefault {
        name: "modify_member",
        check: "role:admin or (role:member and project_id:%(member_id)s)",
    },
    RuleDefault {
        name: "deactivate",
        check: OWNER,
    },
    RuleDefault {
        name: "reactivate",
        check: OWNER,
    },
    RuleDefault {
        name: "get_schema",
        check: "@",
    },
    RuleDefault {
        name: "get_metadef_namespace",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_namespaces",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_resource_type",
        check: METADEF,
    },
    RuleDefault {
        name: "list_metadef_resource_types",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_object",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_objects",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_property",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_properties",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_tag",
        check: METADEF,
    },
    RuleDefault {
        name: "get_metadef_tags",
        check: METADEF,
    },
    RuleDefault {
        name: "add_metadef_namespace",
        check: ADMIN,
    },
    RuleDefault {
        name: "modify_metadef_namespace",
        check: ADMIN,
    },
    RuleDefault {
        name: "delete_metadef_namespace",
        check: ADMIN,
    },
    RuleDefault {
        name: "add_metadef_resource_type_association",
        check: ADMIN,
    },
    RuleDefault {
        name: "remove_metadef_resource_type_association",
        check: ADMIN,
    },
    RuleDefault {
        name: "add_metadef_object",
        check: ADMIN,
    },
    RuleDefault {
        name: "modify_metadef_object",
        check: ADMIN,
    },
    RuleDefault {
        name: "delete_metadef_object",
        check: ADMIN,
    },
    RuleDefault {
        name: "add_metadef_property",
        check: ADMIN,
    },
    RuleDefault {
        name: "modify_metadef_property",
        check: ADMIN,
    },
    RuleDefault {
        name: "remove_metadef_property",
        check: ADMIN,
    },
    RuleDefault {
        name: "add_metadef_tag",
        check: ADMIN,
    },
    RuleDefault {
        name: "add_metadef_tags",
        check: ADMIN,
    },
    RuleDefault {
        name: "modify_metadef_tag",
        check: ADMIN,
    },
    RuleDefault {
        name: "delete_metadef_tag",
        check: ADMIN,
    },
    RuleDefault {
        name: "delete_metadef_tags",
        check: ADMIN,
    },
    RuleDefault {
        name: "copy_image",
        check: ADMIN,
    },
    RuleDefault {
        name: "tasks_api_access",
        check: ADMIN,
    },
    RuleDefault {
        name: "stores_info_detail",
        check: ADMIN,
    },
    RuleDefault {
        name: "delete_image_location",
        check: OWNER,
    },
];
