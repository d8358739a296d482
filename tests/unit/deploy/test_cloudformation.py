"""The templates of `deploy/`: linted by AWS's linter, and deployed, as far as moto knows their resources."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import cfn_yaml
from moto import mock_aws

from dualstore.config import load

DEPLOY = Path(__file__).parents[3] / "deploy"
TEMPLATES = DEPLOY / "cloudformation"
REGION = "eu-west-1"

UNKNOWN_TO_MOTO = {
    "AWS::Backup::BackupPlan",
    "AWS::Backup::BackupSelection",
    "AWS::Backup::BackupVault",
    "AWS::CloudWatch::Alarm",
    "AWS::RDS::DBCluster",
    "AWS::RDS::DBClusterParameterGroup",
    "AWS::RDS::DBProxy",
    "AWS::RDS::DBProxyTargetGroup",
    "AWS::S3::BucketPolicy",
    "AWS::SecretsManager::Secret",
    "AWS::SecretsManager::SecretTargetAttachment",
}
"""What moto's CloudFormation does not make: these, and what is made of them, are linted only."""

Stack = dict[str, str]


def template(name: str) -> dict[str, Any]:
    return json.loads(json.dumps(cfn_yaml.load(str(TEMPLATES / name))))


def names_in(part: Any) -> Iterator[str]:
    """The resources and parameters that a part of a template refers to."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0] if isinstance(value, list) else value.partition(".")[0]
            elif key == "Fn::Sub":
                text = value if isinstance(value, str) else value[0]
                yield from (piece.partition("}")[0].partition(".")[0] for piece in text.split("${")[1:])
                yield from names_in(value)
            else:
                yield from names_in(value)
    elif isinstance(part, list):
        for value in part:
            yield from names_in(value)


def known_part(document: dict[str, Any]) -> dict[str, Any]:
    """A template without what moto cannot make, and without what is made of that."""
    resources = dict(document["Resources"])
    left_out = {name for name, each in resources.items() if each["Type"] in UNKNOWN_TO_MOTO}
    while more := {
        name
        for name, each in resources.items()
        if name not in left_out and left_out & {*names_in(each), each.get("DependsOn")}
    }:
        left_out |= more
    kept = {name: each for name, each in resources.items() if name not in left_out}
    outputs = {
        name: each for name, each in document.get("Outputs", {}).items() if not left_out & set(names_in(each))
    }
    return {**document, "Resources": kept, "Outputs": outputs}


@pytest.fixture(scope="module")
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def deploy(name: str, document: dict[str, Any], **parameters: str) -> Stack:
    """Deploy a template; the physical names of its resources, and its outputs."""
    client = boto3.client("cloudformation", region_name=REGION)
    client.create_stack(
        StackName=name,
        TemplateBody=json.dumps(document),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    (stack,) = client.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    resources = client.list_stack_resources(StackName=name)["StackResourceSummaries"]
    assert {each["LogicalResourceId"] for each in resources} == set(document["Resources"])
    return {
        **{each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources},
        **{each["OutputKey"]: each["OutputValue"] for each in stack.get("Outputs", [])},
    }


@pytest.fixture(scope="module")
def network(aws: None) -> Stack:
    return deploy("network", template("network.yaml"))


@pytest.fixture(scope="module", params=["dev", "production"])
def database(network: Stack, request: pytest.FixtureRequest) -> Stack:
    return deploy(
        f"database-{request.param}",
        known_part(template("database.yaml")),
        Environment=request.param,
        VpcId=network["VpcId"],
        SubnetIds=network["SubnetIds"],
        ServiceSecurityGroupId=network["ServiceSecurityGroupId"],
    )


@pytest.fixture(scope="module")
def table(network: Stack) -> Stack:
    stream = boto3.client("dynamodb", region_name=REGION).create_table(
        TableName="orders",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )["TableDescription"]["LatestStreamArn"]
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": REGION})
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("dualstore.toml", "")
    s3.put_object(Bucket="code", Key="relay.zip", Body=package.getvalue())
    made = deploy(
        "orders",
        known_part(template("table.yaml")),
        Table="orders",
        StreamArn=stream,
        CodeBucket="code",
        CodeKey="relay.zip",
        PostgresUrl="postgresql://service@db.example/app?sslmode=verify-full&sslrootcert=rds.pem",
        ConnectPolicyArn="arn:aws:iam::123456789012:policy/connect",
        KeyArn=f"arn:aws:kms:{REGION}:123456789012:key/one",
        SubnetIds=network["SubnetIds"],
        ServiceSecurityGroupId=network["ServiceSecurityGroupId"],
        AlarmTopicArn=f"arn:aws:sns:{REGION}:123456789012:alarms",
    )
    return {**made, "Stream": stream}


def test_the_linter_of_aws_has_nothing_to_say() -> None:
    files = [*sorted(TEMPLATES.glob("*.yaml")), DEPLOY / "cloudwatch" / "alarms.template.json"]
    assert len(files) > 3
    command = [Path(sys.executable).with_name("cfn-lint"), *files]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_moto_makes_every_other_kind_of_resource(network: Stack, database: Stack, table: Stack) -> None:
    """So that a resource that is added is deployed, or is named above as one that is not."""
    kinds = {each["Type"] for name in ("network", "database", "table") for each in of(name)}
    assert kinds & UNKNOWN_TO_MOTO == UNKNOWN_TO_MOTO
    made = {"Key", "KeyAlias", "ProxySecurityGroup", "DatabaseSecurityGroup", "SubnetGroup"}
    assert made | {"BackupRole", "DoctorPolicy", "Topic"} == set(
        known_part(template("database.yaml"))["Resources"]
    )


def of(name: str) -> list[dict[str, Any]]:
    return list(template(f"{name}.yaml")["Resources"].values())


def test_only_the_service_and_the_proxy_reach_postgresql(network: Stack, database: Stack) -> None:
    groups = boto3.client("ec2", region_name=REGION).describe_security_groups(
        GroupIds=[database["DatabaseSecurityGroup"]]
    )["SecurityGroups"]
    (rule, *more) = groups[0]["IpPermissions"]
    assert not more
    assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == (5432, 5432, [])
    assert {each["GroupId"] for each in rule["UserIdGroupPairs"]} == {
        network["ServiceSecurityGroupId"],
        database["ProxySecurityGroup"],
    }


def test_the_key_is_rotated(database: Stack) -> None:
    kms = boto3.client("kms", region_name=REGION)
    assert kms.get_key_rotation_status(KeyId=database["Key"])["KeyRotationEnabled"]


def test_the_relay_is_told_of_partial_failures_and_gives_nothing_up_silently(table: Stack) -> None:
    mapping = boto3.client("lambda", region_name=REGION).get_event_source_mapping(UUID=table["RelayMapping"])
    assert mapping["EventSourceArn"] == table["Stream"]
    properties = template("table.yaml")["Resources"]["RelayMapping"]["Properties"]
    assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert properties["MaximumRetryAttempts"] == properties["MaximumRecordAgeInSeconds"] == -1
    assert properties["DestinationConfig"]["OnFailure"]["Destination"] == {
        "Fn::GetAtt": ["Undeliverable", "Arn"]
    }


def test_the_environment_of_the_relay_is_a_configuration(
    table: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    function = boto3.client("lambda", region_name=REGION).get_function(FunctionName=table["Relay"])
    variables = function["Configuration"]["Environment"]["Variables"]
    for name, value in variables.items():
        if name != "DUALSTORE_CONFIG":  # of the handler
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    configuration = load()
    assert configuration.postgres.iam
    assert configuration.postgres.pool_size == 1
    assert configuration.telemetry.emf == "stdout"
    assert function["Configuration"]["Handler"] == "dualstore.aws_lambda.handler"


def test_exports_are_encrypted_and_private(table: Stack) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    (rule,) = s3.get_bucket_encryption(Bucket=table["Exports"])["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    properties = template("table.yaml")["Resources"]["Exports"]["Properties"]  # moto leaves the rest out
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}


def test_the_database_is_encrypted_signed_in_to_with_tokens_and_asks_for_tls() -> None:
    resources = template("database.yaml")["Resources"]
    cluster, proxy = resources["Cluster"]["Properties"], resources["Proxy"]["Properties"]
    assert cluster["StorageEncrypted"] is True
    assert cluster["EnableIAMDatabaseAuthentication"] is True
    assert resources["ClusterParameters"]["Properties"]["Parameters"]["rds.force_ssl"] == "1"
    assert proxy["RequireTLS"] is True
    assert [each["IAMAuth"] for each in proxy["Auth"]] == ["REQUIRED"]
    allowed = resources["ConnectPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]["Resource"]
    assert "dbuser:*" not in json.dumps(allowed)
