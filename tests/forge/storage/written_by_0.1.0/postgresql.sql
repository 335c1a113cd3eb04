SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.forge_costs (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    sample_id text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    version text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    amount text NOT NULL COLLATE pg_catalog."C"
);
COMMENT ON COLUMN public.forge_costs.amount IS 'decimal, US dollars';
CREATE TABLE public.forge_dead_letters (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    sample_id text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL COLLATE pg_catalog."C",
    place text NOT NULL COLLATE pg_catalog."C",
    error_type text NOT NULL COLLATE pg_catalog."C",
    message text NOT NULL COLLATE pg_catalog."C",
    attempts integer NOT NULL,
    "time" double precision NOT NULL,
    data bytea,
    run_id text NOT NULL COLLATE pg_catalog."C",
    pipeline_id text NOT NULL COLLATE pg_catalog."C",
    parent text COLLATE pg_catalog."C",
    derived_by text COLLATE pg_catalog."C",
    input_digest text COLLATE pg_catalog."C",
    digest text COLLATE pg_catalog."C",
    carrier text NOT NULL COLLATE pg_catalog."C"
);
COMMENT ON COLUMN public.forge_dead_letters."time" IS 'Unix time';
COMMENT ON COLUMN public.forge_dead_letters.carrier IS 'JSON object';
CREATE TABLE public.forge_measurements (
    number bigint NOT NULL,
    pipeline text NOT NULL COLLATE pg_catalog."C",
    sample_id text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    version text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    value bytea NOT NULL,
    created_at double precision NOT NULL
);
COMMENT ON COLUMN public.forge_measurements.created_at IS 'Unix time';
CREATE SEQUENCE public.forge_measurements_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.forge_measurements_number_seq OWNED BY public.forge_measurements.number;
CREATE TABLE public.forge_runs (
    id text NOT NULL COLLATE pg_catalog."C",
    pipeline text NOT NULL COLLATE pg_catalog."C",
    pipeline_id text NOT NULL COLLATE pg_catalog."C",
    started double precision NOT NULL,
    ended double precision,
    outcome text COLLATE pg_catalog."C",
    record text NOT NULL COLLATE pg_catalog."C"
);
COMMENT ON COLUMN public.forge_runs.started IS 'Unix time';
COMMENT ON COLUMN public.forge_runs.ended IS 'Unix time';
COMMENT ON COLUMN public.forge_runs.record IS 'JSON object';
CREATE TABLE public.forge_samples (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    status text NOT NULL COLLATE pg_catalog."C",
    pipeline_id text NOT NULL COLLATE pg_catalog."C",
    run_id text NOT NULL COLLATE pg_catalog."C",
    parent text COLLATE pg_catalog."C",
    input_digest text COLLATE pg_catalog."C",
    digest text COLLATE pg_catalog."C",
    data bytea,
    reason text COLLATE pg_catalog."C",
    children text NOT NULL COLLATE pg_catalog."C",
    revision integer NOT NULL
);
COMMENT ON COLUMN public.forge_samples.children IS 'JSON list of ids';
COMMENT ON COLUMN public.forge_samples.revision IS '1 when inserted, one more for each change';
ALTER TABLE ONLY public.forge_measurements ALTER COLUMN number SET DEFAULT nextval('public.forge_measurements_number_seq'::regclass);
INSERT INTO public.forge_dead_letters VALUES ('old', 'bad', 'stage', 'parse', 'ValueError', 'no number: ''bad''', 1, 1795848810.819129, '\x2262616422', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', 'c042cdb4567e80f2', NULL, NULL, 'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996', NULL, '{}');
INSERT INTO public.forge_dead_letters VALUES ('old', 'C:\u0000\bad', 'stage', 'parse', 'ValueError', 'no number: ''bad''', 1, 1795848810.832468, '\x2262616422', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', 'c042cdb4567e80f2', NULL, NULL, 'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996', NULL, '{}');
INSERT INTO public.forge_measurements VALUES (1, 'old', '1', 'double', '1', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '\x32', 1795848810.8164809);
INSERT INTO public.forge_measurements VALUES (2, 'old', 'many#a', 'double', '1', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '\x32', 1795848810.8263166);
INSERT INTO public.forge_measurements VALUES (3, 'old', 'many#b', 'double', '1', 'd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35', '\x34', 1795848810.8263166);
INSERT INTO public.forge_measurements VALUES (4, 'old', 'C:\u0000\users', 'double', '1', 'ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d', '\x3130', 1795848810.827756);
INSERT INTO public.forge_measurements VALUES (5, 'old', 'C:\u0000\many#a', 'double', '1', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '\x32', 1795848810.8341665);
INSERT INTO public.forge_measurements VALUES (6, 'old', 'C:\u0000\many#b', 'double', '1', 'd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35', '\x34', 1795848810.8341665);
INSERT INTO public.forge_runs VALUES ('3fbfa564-4e6d-4a3f-bc27-92701b4a401c', 'old', 'c042cdb4567e80f2', 1795848810.7616878, 1795848810.8349228, 'completed', '{"run_id": "3fbfa564-4e6d-4a3f-bc27-92701b4a401c", "pipeline": "old", "pipeline_id": "c042cdb4567e80f2", "definition": {"name": "old", "stages": [["parse", "1"]], "measurements": [["double", "1"]]}, "runner": "batch", "outcome": "completed", "error_type": null, "error": null, "started": 1795848810.7616878, "ended": 1795848810.8349228, "duration": 0.07323473699943861, "ledger": {"admitted": 7, "derived": 4, "active": 0, "ready": 6, "skipped": 1, "unchanged": 0, "split": 2, "dlq": 2, "failed": 0, "settled": 11, "imbalance": 0}, "stages": [{"name": "parse", "executions": 7, "successes": 4, "skips": 1, "errors": 2, "cancelled": 0, "retries": 0, "p50": 1.7550729808244036e-05, "p95": 2.2762266815214792e-05, "p99": 2.2762266815214792e-05, "max": 2.4025999664445408e-05, "busy": 0.00011368999912519939, "utilization": 0.001552405371867054, "queue_wait_p95": 0.0, "backpressure": 0.0, "concurrency": 1, "batches": 0}], "measurements": [{"key": "double", "version": "1", "computed": 6, "cached": 0, "errors": 0, "p50": 4.242056593945474e-06, "p95": 1.0859926348780309e-05, "p99": 1.0859926348780309e-05, "max": 1.1807000191765837e-05}], "storage": {"inserted": 11, "updated": 0, "unchanged": 0, "bytes_written": 13, "artifacts_uploaded": 0, "artifacts_deduplicated": 0, "artifact_bytes_written": 0}, "dead_letters": [{"source": "stage", "where": "parse", "error_type": "ValueError", "count": 2}], "failures": [], "skips": [{"stage": "parse", "reason": "empty", "count": 1}], "input_digest": "b9e7128f9e339fff61e3a665266d945c1b892ab0e492c90651e1896f37e3a5f0", "revision": null, "cost": {"amount": "0", "calls": 0, "input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "unpriced": 0, "saved": {}, "per_ready_sample": "0", "wasted_share": null, "charges": []}}');
INSERT INTO public.forge_samples VALUES ('old', '1', 'ready', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', NULL, '391552c099c101b131feaf24c5795a6a15bc8ec82015424e0d2b4274a369a0bf', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '\x31', NULL, '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'skipped', 'skipped', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', NULL, '3fcfe71c199e24d6c42a446390c40d7e2e2825bf4253fde431d6ec9a6ee3a217', NULL, NULL, 'empty', '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'bad', 'dlq', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', NULL, 'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996', NULL, NULL, 'ValueError', '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'many', 'split', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', NULL, '3ed77c88098cd90de1bb86eba6cc7d6e363ed45485ceadc244c177a7dfa8f6c8', NULL, NULL, NULL, '["many#a", "many#b"]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'many#a', 'ready', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', 'many', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '\x31', NULL, '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'many#b', 'ready', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', 'many', 'd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35', 'd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35', '\x32', NULL, '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'C:\u0000\users', 'ready', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', NULL, 'd10a4bc9e0c1fa4e8f3d7ce2512b8756e47ca5fa451f373c39a1431bb88db49f', 'ef2d127de37b942baad06145e54b0c619a1f22327b2ebbcfbec78f5564afe39d', '\x35', NULL, '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'C:\u0000\bad', 'dlq', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', NULL, 'cbfeda2b1f044ccca4ea9dac0fe08a34af201914e29adf982262f1d735d08996', NULL, NULL, 'ValueError', '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'C:\u0000\many', 'split', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', NULL, '3ed77c88098cd90de1bb86eba6cc7d6e363ed45485ceadc244c177a7dfa8f6c8', NULL, NULL, NULL, '["C:\\u0000\\many#a", "C:\\u0000\\many#b"]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'C:\u0000\many#a', 'ready', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', 'C:\u0000\many', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b', '\x31', NULL, '[]', 1);
INSERT INTO public.forge_samples VALUES ('old', 'C:\u0000\many#b', 'ready', 'c042cdb4567e80f2', '3fbfa564-4e6d-4a3f-bc27-92701b4a401c', 'C:\u0000\many', 'd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35', 'd4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35', '\x32', NULL, '[]', 1);
SELECT pg_catalog.setval('public.forge_measurements_number_seq', 6, true);
ALTER TABLE ONLY public.forge_costs
    ADD CONSTRAINT forge_costs_pkey PRIMARY KEY (pipeline, sample_id, key, version, digest);
ALTER TABLE ONLY public.forge_dead_letters
    ADD CONSTRAINT forge_dead_letters_pkey PRIMARY KEY (pipeline, sample_id);
ALTER TABLE ONLY public.forge_measurements
    ADD CONSTRAINT forge_measurements_key UNIQUE (pipeline, sample_id, key, version, digest);
ALTER TABLE ONLY public.forge_measurements
    ADD CONSTRAINT forge_measurements_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.forge_runs
    ADD CONSTRAINT forge_runs_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.forge_samples
    ADD CONSTRAINT forge_samples_pkey PRIMARY KEY (pipeline, id);
CREATE INDEX forge_dead_letters_time ON public.forge_dead_letters USING btree (pipeline, "time", sample_id);
CREATE INDEX forge_runs_started ON public.forge_runs USING btree (pipeline, started);
CREATE INDEX forge_samples_parent ON public.forge_samples USING btree (pipeline, parent);
