BEGIN TRANSACTION;
CREATE TABLE forge_costs (
	pipeline TEXT NOT NULL, 
	sample_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	version TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	amount TEXT NOT NULL, 
	PRIMARY KEY (pipeline, sample_id, "key", version, digest)
);
CREATE TABLE forge_dead_letters (
	pipeline TEXT NOT NULL, 
	sample_id TEXT NOT NULL, 
	source TEXT NOT NULL, 
	place TEXT NOT NULL, 
	error_type TEXT NOT NULL, 
	message TEXT NOT NULL, 
	attempts INTEGER NOT NULL, 
	time DOUBLE NOT NULL, 
	data BLOB, 
	run_id TEXT NOT NULL, 
	pipeline_id TEXT NOT NULL, 
	parent TEXT, 
	derived_by TEXT, 
	input_digest TEXT, 
	digest TEXT, 
	carrier TEXT NOT NULL, 
	PRIMARY KEY (pipeline, sample_id)
);
INSERT INTO "forge_dead_letters" VALUES('old','bad','stage','parse','ValueError','no number: ''bad''',1,1.79584881000275969507e+09,X'2262616422','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df','c042cdb4567e80f2',NULL,NULL,'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996',NULL,'{}');
INSERT INTO "forge_dead_letters" VALUES('old','C:\u0000\bad','stage','parse','ValueError','no number: ''bad''',1,1.79584881001062655449e+09,X'2262616422','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df','c042cdb4567e80f2',NULL,NULL,'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996',NULL,'{}');
CREATE TABLE forge_measurements (
	number INTEGER NOT NULL, 
	pipeline TEXT NOT NULL, 
	sample_id TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	version TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	value BLOB NOT NULL, 
	created_at DOUBLE NOT NULL, 
	PRIMARY KEY (number), 
	CONSTRAINT forge_measurements_key UNIQUE (pipeline, sample_id, "key", version, digest)
);
INSERT INTO "forge_measurements" VALUES(1,'old','1','double','1','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b',X'32',1.79584881000121831889e+09);
INSERT INTO "forge_measurements" VALUES(2,'old','many#a','double','1','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b',X'32',1.79584881000966501232e+09);
INSERT INTO "forge_measurements" VALUES(3,'old','many#b','double','1','d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35',X'34',1.79584881000966501232e+09);
INSERT INTO "forge_measurements" VALUES(4,'old','C:\u0000\users','double','1','ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d',X'3130',1.79584881001039624219e+09);
INSERT INTO "forge_measurements" VALUES(5,'old','C:\u0000\many#a','double','1','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b',X'32',1.79584881001125907899e+09);
INSERT INTO "forge_measurements" VALUES(6,'old','C:\u0000\many#b','double','1','d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35',X'34',1.79584881001125907899e+09);
CREATE TABLE forge_runs (
	id TEXT NOT NULL, 
	pipeline TEXT NOT NULL, 
	pipeline_id TEXT NOT NULL, 
	started DOUBLE NOT NULL, 
	ended DOUBLE, 
	outcome TEXT, 
	record TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "forge_runs" VALUES('1cbe58d4-9fdd-4640-8d12-c0775d3ae0df','old','c042cdb4567e80f2',1.79584880996279764179e+09,1.79584881001156377797e+09,'completed','{"run_id": "1cbe58d4-9fdd-4640-8d12-c0775d3ae0df", "pipeline": "old", "pipeline_id": "c042cdb4567e80f2", "definition": {"name": "old", "stages": [["parse", "1"]], "measurements": [["double", "1"]]}, "runner": "batch", "outcome": "completed", "error_type": null, "error": null, "started": 1795848809.9627976, "ended": 1795848810.0115638, "duration": 0.048763771999801975, "ledger": {"admitted": 7, "derived": 4, "active": 0, "ready": 6, "skipped": 1, "unchanged": 0, "split": 2, "dlq": 2, "failed": 0, "settled": 11, "imbalance": 0}, "stages": [{"name": "parse", "executions": 7, "successes": 4, "skips": 1, "errors": 2, "cancelled": 0, "retries": 0, "p50": 1.2491947035636003e-05, "p95": 1.863604360322296e-05, "p99": 1.863604360322296e-05, "max": 1.9278999388916418e-05, "busy": 9.527300062472932e-05, "utilization": 0.001953766017631208, "queue_wait_p95": 0.0, "backpressure": 0.0, "concurrency": 1, "batches": 0}], "measurements": [{"key": "double", "version": "1", "computed": 6, "cached": 0, "errors": 0, "p50": 4.978126079885567e-06, "p95": 8.373490858013862e-06, "p99": 8.373490858013862e-06, "max": 1.0515999747440219e-05}], "storage": {"inserted": 11, "updated": 0, "unchanged": 0, "bytes_written": 13, "artifacts_uploaded": 0, "artifacts_deduplicated": 0, "artifact_bytes_written": 0}, "dead_letters": [{"source": "stage", "where": "parse", "error_type": "ValueError", "count": 2}], "failures": [], "skips": [{"stage": "parse", "reason": "empty", "count": 1}], "input_digest": "b9e7128f9e339fff61e3a665266d945c1b892ab0e492c90651e1896f37e3a5f0", "revision": null, "cost": {"amount": "0", "calls": 0, "input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "unpriced": 0, "saved": {}, "per_ready_sample": "0", "wasted_share": null, "charges": []}}');
CREATE TABLE forge_samples (
	pipeline TEXT NOT NULL, 
	id TEXT NOT NULL, 
	status TEXT NOT NULL, 
	pipeline_id TEXT NOT NULL, 
	run_id TEXT NOT NULL, 
	parent TEXT, 
	input_digest TEXT, 
	digest TEXT, 
	data BLOB, 
	reason TEXT, 
	children TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	PRIMARY KEY (pipeline, id)
);
INSERT INTO "forge_samples" VALUES('old','1','ready','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df',NULL,'391552c099c101b131feaf24c5795a6a15bc8ec82015424e0d2b4274a369a0bf','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b',X'31',NULL,'[]',1);
INSERT INTO "forge_samples" VALUES('old','skipped','skipped','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df',NULL,'3fcfe71c199e24d6c42a446390c40d7e2e2825bf4253fde431d6ec9a6ee3a217',NULL,NULL,'empty','[]',1);
INSERT INTO "forge_samples" VALUES('old','bad','dlq','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df',NULL,'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996',NULL,NULL,'ValueError','[]',1);
INSERT INTO "forge_samples" VALUES('old','many','split','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df',NULL,'3ed77c88098cd90de1bb86eba6cc7d6e363ed45485ceadc244c177a7dfa8f6c8',NULL,NULL,NULL,'["many#a", "many#b"]',1);
INSERT INTO "forge_samples" VALUES('old','many#a','ready','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df','many','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b',X'31',NULL,'[]',1);
INSERT INTO "forge_samples" VALUES('old','many#b','ready','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df','many','d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35','d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35',X'32',NULL,'[]',1);
INSERT INTO "forge_samples" VALUES('old','C:\u0000\users','ready','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df',NULL,'d10a4bc9e0c1fa4e8f3d7ce2512b8756e47ca5fa451f373c39a1431bb88db49f','ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d',X'35',NULL,'[]',1);
INSERT INTO "forge_samples" VALUES('old','C:\u0000\bad','dlq','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df',NULL,'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996',NULL,NULL,'ValueError','[]',1);
INSERT INTO "forge_samples" VALUES('old','C:\u0000\many','split','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df',NULL,'3ed77c88098cd90de1bb86eba6cc7d6e363ed45485ceadc244c177a7dfa8f6c8',NULL,NULL,NULL,'["C:\\u0000\\many#a", "C:\\u0000\\many#b"]',1);
INSERT INTO "forge_samples" VALUES('old','C:\u0000\many#a','ready','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df','C:\u0000\many','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b','6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b',X'31',NULL,'[]',1);
INSERT INTO "forge_samples" VALUES('old','C:\u0000\many#b','ready','c042cdb4567e80f2','1cbe58d4-9fdd-4640-8d12-c0775d3ae0df','C:\u0000\many','d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35','d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35',X'32',NULL,'[]',1);
CREATE INDEX forge_samples_parent ON forge_samples (pipeline, parent);
CREATE INDEX forge_dead_letters_time ON forge_dead_letters (pipeline, time, sample_id);
CREATE INDEX forge_runs_started ON forge_runs (pipeline, started);
COMMIT;
