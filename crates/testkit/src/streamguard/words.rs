//! The words that the events are made of.

pub(super) const FIRST: [&str; 100] = [
    "aaron", "adele", "aisha", "alan", "alice", "amir", "ana", "anders", "anita", "anna", "arun",
    "astrid", "ben", "bianca", "boris", "brenda", "bruno", "carla", "carlos", "chen", "chloe",
    "clara", "dana", "daniel", "david", "deepa", "diego", "dora", "edith", "elena", "eli", "emma",
    "erik", "esther", "eva", "farid", "fatima", "felix", "fiona", "frank", "gabriel", "gina",
    "grace", "hana", "hans", "helen", "hugo", "ines", "irene", "isaac", "ivan", "jana", "jason",
    "jin", "joana", "jonas", "jose", "julia", "kai", "karen", "kenji", "kim", "lars", "laura",
    "lea", "leon", "li", "lucia", "luis", "maria", "mark", "marta", "mei", "miguel", "mina",
    "nadia", "nina", "noah", "olga", "omar", "oscar", "paula", "pedro", "petra", "priya", "rafael",
    "rita", "rosa", "sam", "sara", "sofia", "stefan", "tara", "tom", "uma", "vera", "viktor",
    "wei", "yara", "zoe",
];

pub(super) const LAST: [&str; 100] = [
    "adams", "ahmed", "allen", "almeida", "bauer", "becker", "berg", "bianchi", "blanc", "brown",
    "campos", "carter", "castro", "chan", "chavez", "clark", "cohen", "costa", "cruz", "dahl",
    "davis", "diaz", "dubois", "duarte", "evans", "ferrari", "fischer", "flores", "fontana",
    "garcia", "gomez", "gray", "green", "gruber", "gupta", "haas", "hall", "hansen", "hill",
    "huber", "ito", "ivanov", "jensen", "jones", "kaiser", "kato", "keller", "khan", "king",
    "klein", "koch", "kumar", "lang", "larsen", "lee", "lewis", "lopez", "maier", "martin",
    "meyer", "mori", "moreau", "morgan", "moss", "nair", "nguyen", "novak", "olsen", "ortiz",
    "park", "patel", "perez", "petit", "pinto", "popov", "ramos", "rao", "reed", "reyes", "rossi",
    "roth", "ruiz", "sato", "schmidt", "shah", "silva", "singh", "smith", "sousa", "stone",
    "suzuki", "tanaka", "torres", "vega", "wagner", "walker", "weber", "wong", "young", "zhang",
];

pub(super) const SERVICES: [&str; 10] =
    ["backup", "build", "deploy", "etl", "mail", "monitor", "patch", "report", "scan", "sync"];

/// Cities as StreamGuard writes them, with their offset from UTC in hours.
pub(super) const CITIES: [(&str, i8); 16] = [
    ("San Francisco, CA", -8),
    ("Seattle, WA", -8),
    ("Denver, CO", -7),
    ("Austin, TX", -6),
    ("Chicago, IL", -6),
    ("New York, NY", -5),
    ("Sao Paulo, BR", -3),
    ("Dublin, IE", 0),
    ("London, UK", 0),
    ("Berlin, DE", 1),
    ("Paris, FR", 1),
    ("Warsaw, PL", 1),
    ("Bengaluru, IN", 5),
    ("Singapore, SG", 8),
    ("Tokyo, JP", 9),
    ("Sydney, AU", 10),
];

/// Where nobody of the company works.
pub(super) const ABROAD: [&str; 8] = [
    "Lagos, NG",
    "Moscow, RU",
    "Beijing, CN",
    "Bucharest, RO",
    "Hanoi, VN",
    "Kyiv, UA",
    "Caracas, VE",
    "Tehran, IR",
];

/// Eleven of Windows, seven of macOS, four of Linux.
pub(super) const BROWSERS: [&str; 22] = [
    "Chrome/131.0 (Windows 11)",
    "Chrome/131.0 (Windows 10)",
    "Edge/131.0 (Windows 11)",
    "Edge/131.0 (Windows 10)",
    "Chrome/130.0 (Windows 11)",
    "Chrome/130.0 (Windows 10)",
    "Edge/130.0 (Windows 11)",
    "Edge/130.0 (Windows 10)",
    "Firefox/132.0 (Windows 11)",
    "Firefox/128.4 (Windows 10)",
    "Chrome/129.0 (Windows 10)",
    "Safari/18.1 (macOS 15.1)",
    "Chrome/131.0 (macOS 15.1)",
    "Chrome/131.0 (macOS 14.7)",
    "Safari/17.6 (macOS 14.7)",
    "Chrome/130.0 (macOS 14.7)",
    "Firefox/132.0 (macOS 15.1)",
    "Safari/17.6 (macOS 14.6)",
    "Chrome/131.0 (X11; Linux)",
    "Firefox/132.0 (X11; Ubuntu)",
    "Firefox/128.4 (X11; Fedora)",
    "Chrome/130.0 (X11; Linux)",
];

/// The sensors that report what happens on a machine: Windows, macOS, Linux.
pub(super) const SENSORS: [[&str; 4]; 3] = [
    ["edr/7.18-w11", "edr/7.18-w10", "edr/7.17-w11", "edr/7.17-w10"],
    ["edr/7.18-m15", "edr/7.18-m14", "edr/7.17-m15", "edr/7.17-m14"],
    ["edr/7.18-u24", "edr/7.18-u22", "edr/7.18-d12", "edr/7.17-r9"],
];

pub(super) const APPS: [&str; 36] = [
    "/sso/login",
    "/mail/owa",
    "/vpn/portal",
    "/hr/selfservice",
    "/crm/login",
    "/erp/start",
    "/wiki/home",
    "/jira/login",
    "/git/session",
    "/ci/dashboard",
    "/bi/reports",
    "/chat/web",
    "/files/browse",
    "/helpdesk/new",
    "/expenses/start",
    "/travel/booking",
    "/payroll/view",
    "/learning/home",
    "/calendar/week",
    "/rooms/reserve",
    "/contracts/list",
    "/assets/list",
    "/monitoring/boards",
    "/secrets/ui",
    "/cloud/console",
    "/registry/ui",
    "/support/queue",
    "/sales/pipeline",
    "/billing/invoices",
    "/legal/cases",
    "/search/home",
    "/news/today",
    "/survey/open",
    "/phone/web",
    "/print/queue",
    "/admin/console",
];

pub(super) const DEPARTMENTS: [&str; 12] = [
    "finance",
    "sales",
    "legal",
    "marketing",
    "engineering",
    "support",
    "operations",
    "research",
    "people",
    "procurement",
    "security",
    "facilities",
];

pub(super) const FOLDERS: [&str; 8] =
    ["reports", "contracts", "budget", "projects", "archive", "templates", "meetings", "shared"];

pub(super) const DOCUMENTS: [&str; 20] = [
    "overview.docx",
    "forecast.xlsx",
    "minutes.docx",
    "plan.pptx",
    "invoice.pdf",
    "offer.pdf",
    "roadmap.pptx",
    "summary.pdf",
    "inventory.xlsx",
    "timesheet.xlsx",
    "agreement.pdf",
    "notes.txt",
    "export.csv",
    "figures.xlsx",
    "checklist.docx",
    "draft.docx",
    "photos.zip",
    "backup.tar.gz",
    "schema.sql",
    "config.yaml",
];

/// Programs: Windows, macOS, Linux (five of macOS are Linux's too). Backslashes as JSON writes them.
pub(super) const PROGRAMS: [[&str; 12]; 3] = [
    [
        r"C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
        r"C:\\Program Files\\Microsoft Office\\Office16\\OUTLOOK.EXE",
        r"C:\\Program Files\\Microsoft Office\\Office16\\EXCEL.EXE",
        r"C:\\Program Files\\Microsoft Office\\Office16\\WINWORD.EXE",
        r"C:\\Windows\\System32\\svchost.exe",
        r"C:\\Windows\\System32\\conhost.exe",
        r"C:\\Windows\\System32\\cmd.exe",
        r"C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe",
        r"C:\\Windows\\System32\\taskhostw.exe",
        r"C:\\Windows\\System32\\rundll32.exe",
        r"C:\\Windows\\System32\\whoami.exe",
        r"C:\\Windows\\System32\\net.exe",
    ],
    [
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Slack.app/Contents/MacOS/Slack",
        "/Applications/Microsoft Excel.app/Contents/MacOS/Microsoft Excel",
        "/System/Library/CoreServices/Finder.app/Contents/MacOS/Finder",
        "/usr/libexec/trustd",
        "/usr/libexec/syspolicyd",
        "/bin/zsh",
        "/usr/bin/git",
        "/usr/bin/ssh",
        "/usr/bin/python3",
        "/usr/bin/curl",
        "/usr/bin/sudo",
    ],
    [
        "/usr/bin/bash",
        "/usr/bin/git",
        "/usr/bin/python3",
        "/usr/bin/docker",
        "/usr/bin/kubectl",
        "/usr/lib/systemd/systemd-journald",
        "/usr/sbin/cron",
        "/usr/bin/rsync",
        "/usr/bin/curl",
        "/usr/bin/ssh",
        "/usr/bin/sudo",
        "/usr/bin/cargo",
    ],
];

pub(super) const HOST_ROLES: [&str; 10] =
    ["web", "db", "cache", "queue", "files", "print", "build", "proxy", "mail", "dc"];

/// Ports that connections go to, with what is spoken there.
pub(super) const PORTS: [(u16, &str); 10] = [
    (443, "HTTPS"),
    (443, "HTTPS"),
    (443, "HTTPS"),
    (80, "HTTP"),
    (8443, "HTTPS"),
    (22, "SSH"),
    (3389, "RDP"),
    (5432, "TCP"),
    (445, "SMB"),
    (993, "TCP"),
];

pub(super) const DOMAIN_HEADS: [&str; 20] = [
    "www",
    "api",
    "cdn",
    "mail",
    "login",
    "static",
    "images",
    "update",
    "telemetry",
    "docs",
    "app",
    "auth",
    "media",
    "assets",
    "edge",
    "sync",
    "events",
    "push",
    "files",
    "search",
];

pub(super) const DOMAIN_TAILS: [&str; 20] = [
    "northwind.example",
    "contoso.example",
    "fabrikam.example",
    "acme.example",
    "globex.example",
    "initech.example",
    "umbrella.example",
    "hooli.example",
    "vandelay.example",
    "stark.example",
    "wayne.example",
    "tyrell.example",
    "cyberdyne.example",
    "aperture.example",
    "soylent.example",
    "massive.example",
    "oscorp.example",
    "duff.example",
    "wonka.example",
    "gringotts.example",
];

pub(super) const PRIVILEGES: [&str; 12] = [
    "group:domain-admins",
    "group:server-operators",
    "group:backup-operators",
    "role:db-owner",
    "role:cloud-admin",
    "role:k8s-admin",
    "sudoers:all",
    "role:secrets-reader",
    "group:vpn-users",
    "role:billing-admin",
    "group:remote-desktop",
    "role:audit-viewer",
];
