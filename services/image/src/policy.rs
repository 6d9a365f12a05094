//! The rules of the image service, by upstream's names, with the secure-RBAC defaults.

use maru_auth::RuleDefault;

const OWNER: &str = "role:admin or (role:member and project_id:%(project_id)s)";
const VISIBLE: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s or \
                       'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s))";
const READER: &str = "role:admin or (role:reader and project_id:%(project_id)s)";
const MEMBERS: &str = "role:admin or (role:reader and (project_id:%(project_id)s or project_id:%(member_id)s))";

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
];
