CREATE TABLE answers (
	"key" TEXT NOT NULL, 
	status TEXT NOT NULL, 
	text TEXT NOT NULL, 
	model TEXT NOT NULL, 
	messages TEXT NOT NULL, 
	prompt_tokens INTEGER, 
	completion_tokens INTEGER, 
	seconds FLOAT, 
	created TEXT NOT NULL, 
	parameters TEXT, 
	served_model TEXT, 
	tier TEXT, 
	cost FLOAT, 
	raw BLOB, 
	PRIMARY KEY ("key")
);
INSERT INTO "answers" VALUES('k0','ok','A film.','test-model','[{"role": "user", "content": "x"}]',7,3,0.5,'2026-01-02T03:04:05+00:00','{"max_tokens": 10}','test-model','',0.5,X'789C2B4A2C07000292014B');
INSERT INTO "answers" VALUES('k1','ok','A film.','test-model','[{"role": "user", "content": "x"}]',7,3,0.5,'2026-01-02T03:04:05+00:00','{"max_tokens": 10}','test-model','',0.25,X'789C2B4A2C07000292014B');
INSERT INTO "answers" VALUES('text','ok','Mine.','me','[]',0,0,0.0,'2026-11-26T04:34:54+00:00',NULL,'','',NULL,NULL);
CREATE TABLE batch_requests (
	"key" TEXT NOT NULL, 
	marker TEXT NOT NULL, 
	rounds INTEGER NOT NULL, 
	question TEXT NOT NULL, 
	links TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "batch_requests" VALUES('r','853e90aecef5436aae5181247ecc62e0',1,'{"model": "m"}','[["item", 0, "r", "v1", null]]');
CREATE TABLE batches (
	marker TEXT NOT NULL, 
	base_url TEXT, 
	state TEXT NOT NULL, 
	input_file TEXT, 
	batch_id TEXT, 
	requests INTEGER NOT NULL, 
	created TEXT NOT NULL, 
	PRIMARY KEY (marker)
);
INSERT INTO "batches" VALUES('853e90aecef5436aae5181247ecc62e0',NULL,'running',NULL,'batch-0',1,'2026-11-26T04:34:54.298+00:00');
CREATE TABLE claims (
	"key" TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
CREATE TABLE failures (
	"key" TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	permanent BOOLEAN NOT NULL, 
	created TEXT NOT NULL, 
	source TEXT, 
	entity_id TEXT, 
	PRIMARY KEY ("key")
);
CREATE TABLE knowledge (
	source TEXT NOT NULL, 
	entity_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	prompt_version TEXT NOT NULL, 
	as_of TEXT, 
	updated TEXT NOT NULL, 
	PRIMARY KEY (source, entity_id)
);
INSERT INTO "knowledge" VALUES('item:tags','0','k0','v1',NULL,'2026-11-26T04:34:54+00:00');
INSERT INTO "knowledge" VALUES('item:tags','1','k1','v1',NULL,'2026-11-26T04:34:54+00:00');
INSERT INTO "knowledge" VALUES('item','9','text','imported',NULL,'2026-11-26T04:34:54+00:00');
CREATE TABLE workers (
	owner TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	seen FLOAT NOT NULL, 
	PRIMARY KEY (owner)
);
CREATE INDEX ix_knowledge_key ON knowledge ("key");
CREATE INDEX ix_claims_owner ON claims (owner);
CREATE INDEX ix_batch_requests_marker ON batch_requests (marker);
PRAGMA application_id = 0x6B617231;
PRAGMA user_version = 2;
